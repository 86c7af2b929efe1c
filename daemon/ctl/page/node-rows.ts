// A row per node: its state, backend, MTU, pods and conditions; the worst first.
import { contains, parseIp, parsePrefix } from '../../../ipam/address.ts'
import type { StatusAnswer } from '../../api/answers.ts'
import { type Asked, type LeaseFact, type NodeFacts, ownKey } from './facts.ts'
import { ERROR, GOOD, NO_ANSWER, NOT_ASKED, NOT_READY, WARNING } from './marks.ts'
import { nodeNames } from './matrix.ts'
import type { ConditionView, Mark, NodesView, NodeView, Tone } from './view-types.ts'

/** Rows that are shown; the rest is counted. */
const MOST_ROWS = 200

const TONES: readonly Tone[] = ['bad', 'warning', 'good', 'unknown']

export function nodesView(asked: readonly Asked[], mostRows = MOST_ROWS): NodesView {
  const names = nodeNames(asked)
  const leases = leasesOf(asked)
  const answered = asked.map((each) => nodeView(each, leases, names))
  const known = new Set(answered.map(({ key }) => key))
  const reporter = asked.find(({ facts }) => facts?.nodes !== undefined)
  const others = [...leases.values()]
    .filter(({ key }) => !known.has(key))
    .map((lease) => leaseView(lease, names.get(lease.key), asked.length === 1))
  const byName = new Intl.Collator('en', { numeric: true })
  const rank = ({ state }: NodeView) => TONES.indexOf(state.tone)
  const rows = [...answered, ...others].sort((a, b) => rank(a) - rank(b) || byName.compare(a.name, b.name))
  const left = rows.length - mostRows
  return {
    rows: rows.slice(0, mostRows),
    note: [
      ...(asked.length === 1 && others.length > 0
        ? [
            'Only this weftd was asked; of the other nodes, the table shows the lease and whether it is programmed here.'
          ]
        : []),
      ...(left > 0 ? [`${left.toLocaleString('en')} more nodes, in no worse state, are not shown.`] : []),
      ...(reporter === undefined && asked.some(({ facts }) => facts !== undefined)
        ? ['Which nodes the network has is not known: no weftd answered the question.']
        : [])
    ].join(' ')
  }
}

/** By key. What is skipped may be no node. */
function leasesOf(asked: readonly Asked[]): ReadonlyMap<string, LeaseFact> {
  const leases = new Map<string, LeaseFact>()
  for (const { facts } of asked)
    for (const lease of facts?.nodes?.leases ?? []) if (!leases.has(lease.key)) leases.set(lease.key, lease)
  return leases
}

function nodeView(
  { name, facts, failure }: Asked,
  leases: ReadonlyMap<string, LeaseFact>,
  names: ReadonlyMap<string, string>
): NodeView {
  if (facts === undefined) {
    const lease = [...leases.values()].find(({ node }) => node === name)
    return {
      ...leaseParts(lease, lease?.key ?? name),
      name: name || 'this node',
      state: NO_ANSWER,
      conditions: [plain(failure ?? '')]
    }
  }
  const { status } = facts
  const key = ownKey(facts)
  const lease = leases.get(key)
  const unprogrammed = (facts.nodes?.leases ?? []).filter(({ isOwn, ...each }) => !isOwn && !isProgrammed(each))
  const conditions = [
    ...(status?.conditions ?? []).map(conditionView),
    ...unprogrammed.slice(0, 3).map((each) => plain(unprogrammedText(each, names))),
    ...(unprogrammed.length > 3 ? [plain(`${unprogrammed.length - 3} more nodes are not programmed`)] : []),
    ...Object.entries(facts.unanswered)
      .filter(([question]) => question !== 'peers')
      .map(([question, reason]) => plain(`no answer to ${question}: ${reason}`))
  ]
  return {
    ...leaseParts(lease, key || name),
    name: names.get(key) || status?.node || name || 'this node',
    state: stateOf(status, conditions),
    ...(status && {
      addresses: status.publicIp.join(', '),
      subnet: status.subnet.join(', '),
      backend: status.backend,
      mtu: mtuText(status),
      pods: podsText(status, facts),
      leaseEnds: status.leaseEnds ?? (status.store === 'kubernetes' ? 'no end' : '')
    }),
    conditions
  }
}

const isProgrammed = ({ inKernel, skipped, shadowed }: Omit<LeaseFact, 'isOwn'>): boolean =>
  inKernel && skipped === undefined && shadowed === undefined

function unprogrammedText(lease: Omit<LeaseFact, 'isOwn'>, names: ReadonlyMap<string, string>): string {
  const { key, skipped, shadowed } = lease
  const name = names.get(key) || lease.node || key
  if (skipped !== undefined) return `${name} is not used: ${skipped}`
  return shadowed === undefined ? `${name} is incomplete in the kernel` : `${name}: ${shadowed}`
}

function stateOf(status: StatusAnswer | undefined, conditions: readonly ConditionView[]): Mark {
  if (status === undefined) return NO_ANSWER
  if (!status.ready) return NOT_READY
  if (conditions.some(({ mark }) => mark.tone === 'bad')) return { ...ERROR, word: 'ready, with an error' }
  return conditions.length > 0 ? { ...WARNING, word: 'ready, with a warning' } : GOOD
}

function conditionView({ severity, code, since, sentence }: StatusAnswer['conditions'][number]): ConditionView {
  const [text = '', cure = ''] = sentence.split('. Cure: ')
  return { mark: severity === 'error' ? ERROR : WARNING, code, text, cure, since }
}

const plain = (text: string): ConditionView => ({ mark: WARNING, code: '', text, cure: '', since: '' })

/** `pods 1450, eth0 1500`. */
function mtuText({ link, podMtuBytes }: StatusAnswer): string {
  const parts = [
    ...(podMtuBytes === undefined ? [] : [`pods ${podMtuBytes}`]),
    ...(link === undefined ? [] : [`${link.name} ${link.mtuBytes}`])
  ]
  return parts.join(', ')
}

/** `12, 241 addresses free`: of the node's IPv4 subnet; one of IPv6 never runs out. */
function podsText({ pods, subnet }: StatusAnswer, { pods: listed }: NodeFacts): string {
  const prefix = subnet.map((text) => parsePrefix(text)).find((each) => each?.ip.family === 4)
  if (prefix === undefined || listed === undefined) return String(pods)
  const used = new Set(
    listed.pods
      .flatMap(({ addresses }) => addresses)
      .filter((text) => {
        const ip = parseIp(text.replace(/\/.*/, ''))
        return ip !== undefined && contains(prefix, ip)
      })
  )
  // Not for pods: network, gateway, broadcast.
  const free = Math.max(0, 2 ** (32 - prefix.length) - 3 - used.size)
  return `${pods}, ${free.toLocaleString('en')} addresses free`
}

function leaseParts(lease: LeaseFact | undefined, key: string): Omit<NodeView, 'name' | 'state' | 'conditions'> {
  return {
    key,
    addresses: lease?.publicIp.join(', ') ?? '',
    subnet: lease?.subnet.join(', ') ?? '',
    backend: lease?.backend ?? '',
    mtu: '',
    pods: '',
    leaseEnds: ''
  }
}

/** A node of which only the lease is known. */
const leaseView = (lease: LeaseFact, name: string | undefined, isLocal: boolean): NodeView => ({
  ...leaseParts(lease, lease.key),
  name: name || lease.node || lease.publicIp[0] || lease.key,
  state: isLocal
    ? { ...NOT_ASKED, word: isProgrammed(lease) ? 'not asked, programmed' : 'not asked, NOT programmed' }
    : NO_ANSWER,
  conditions: isLocal ? [] : [plain('it has a lease, but no weft pod there has answered')]
})
