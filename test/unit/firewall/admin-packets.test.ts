// Sends every kind of packet through random rulesets, without Weft's accepts and with them: they open nothing that an
// administrator closed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { foreignAccepts, foreignDrops, unansweredReasons } from '../../../daemon/firewall/foreign-accepts.ts'
import type { ForeignCondition, ForeignTable } from '../../../daemon/state/foreign-chain.ts'
import { placeFor } from '../../../daemon/state/foreign-course.ts'
import type { ForeignAccept } from '../../../daemon/state/object.ts'
import { contains, type Ip, parseIp } from '../../../ipam/address.ts'
import { pods, saved, side, verdictOf } from './saved-rules.ts'

type Packet = { readonly in: string; readonly out: string; readonly source: Ip; readonly destination: Ip }

const ip = (text: string): Ip => parseIp(text) ?? assert.fail(text)
const addresses = ['10.244.1.7', '10.244.2.9', '10.9.9.9', '192.168.10.77', '203.0.113.5'].map(ip)
const packets: readonly Packet[] = ['cni0', 'eth0', 'docker0'].flatMap((from) =>
  ['cni0', 'eth0', 'docker0'].flatMap((to) =>
    addresses.flatMap((source) => addresses.map((destination) => ({ in: from, out: to, source, destination })))
  )
)

/** The packets are the first of their connections. */
const isForAll = ({ kind }: ForeignCondition): boolean => kind === 'family' || kind === 'new'

function matches(conditions: readonly ForeignCondition[], packet: Packet): boolean {
  return conditions.every((condition) => {
    if (condition.kind === 'interface') return condition.names.includes(packet[condition.side]) !== condition.negated
    if (condition.kind !== 'address' || condition.side === undefined) return isForAll(condition)
    const address = packet[condition.side]
    return condition.prefixes.some((one) => contains(one, address)) !== condition.negated
  })
}

type Placed = { readonly accept: ForeignAccept; readonly at: number | undefined }
type End = { readonly verdict: 'accept' | 'drop' | 'return'; readonly conditions: readonly ForeignCondition[] }

const isMeant = (match: ForeignAccept['match'], { source, destination }: Packet): boolean =>
  (match === 'destination' || contains(pods, source)) && (match === 'source' || contains(pods, destination))

/** Sends packets through a table: the verdict, and the conditions on the way there. */
class Sender {
  readonly #table: ForeignTable
  readonly #accepts: readonly Placed[]
  /** As if what drops everything were not there. */
  readonly #isNarrowed: boolean

  constructor(table: ForeignTable, accepts: readonly Placed[], isNarrowed = false) {
    this.#table = table
    this.#accepts = accepts
    this.#isNarrowed = isNarrowed
  }

  send(packet: Packet): End {
    const end = this.#through('FORWARD', packet, [])
    if (end !== undefined && end.verdict !== 'return') return end
    const policy = this.#table.chains.get('FORWARD')?.policy ?? 'accept'
    return { verdict: this.#isNarrowed ? 'accept' : policy, conditions: [] }
  }

  #oursAt(name: string, index: number, packet: Packet): ForeignAccept | undefined {
    const here = this.#accepts.filter(({ accept, at }) => accept.chain === name && at === index)
    return here.find(({ accept }) => isMeant(accept.match, packet))?.accept
  }

  #through(name: string, packet: Packet, outer: readonly ForeignCondition[], from = 0): End | undefined {
    const ours = this.#oursAt(name, from, packet)
    if (ours !== undefined) return { verdict: verdictOf(ours), conditions: [] }
    const rule = this.#table.chains.get(name)?.rules[from]
    if (rule === undefined) return undefined
    const branch = rule.branches.find(({ conditions }) => matches(conditions, packet))
    const conditions = [...outer, ...(branch?.conditions ?? []).filter((condition) => !isForAll(condition))]
    const isPassed = this.#isNarrowed && branch?.verdict.kind === 'drop' && conditions.length === 0
    if (branch === undefined || isPassed) return this.#through(name, packet, outer, from + 1)
    const { verdict } = branch
    if (!('chain' in verdict)) return { verdict: verdict.kind === 'queue' ? 'drop' : verdict.kind, conditions }
    const end = this.#through(verdict.chain, packet, conditions)
    if (end !== undefined && end.verdict !== 'return') return end
    return verdict.kind === 'jump' ? this.#through(name, packet, outer, from + 1) : undefined
  }
}

/** Whether a drop names addresses of pods or devices behind which they are. */
const namesPods = (all: readonly ForeignCondition[]): boolean =>
  all.some((condition) =>
    condition.kind === 'interface'
      ? condition.names.includes('cni0')
      : condition.kind === 'address' && condition.prefixes.some((one) => contains(pods, one))
  )

/** Asserts that Weft's accepts open nothing for this packet that is to stay closed. */
function check(table: ForeignTable, accepts: readonly Placed[], packet: Packet, isReported: boolean): void {
  const without = new Sender(table, []).send(packet)
  const withThem = new Sender(table, accepts).send(packet)
  const [fromPod, toPod] = [contains(pods, packet.source), contains(pods, packet.destination)]
  if (without.verdict !== 'drop' || !(fromPod || toPod)) return
  const isCaught = withThem.verdict === 'drop' && withThem.conditions.length === 0
  assert.ok(!isCaught || isReported, 'what drops everything is neither answered nor reported')
  if (withThem.verdict === 'drop') return
  for (const dropped of [without, new Sender(table, [], true).send(packet)]) {
    if (dropped.verdict !== 'drop') continue
    assert.ok(!namesPods(dropped.conditions), 'a drop that names pods is opened')
    assert.ok((fromPod && toPod) || dropped.conditions.length === 0, 'a narrowed drop is opened for others')
  }
}

const conditionTexts = [
  ...[
    '-s 10.244.1.7',
    '-s 10.0.0.0/8',
    '! -s 192.168.10.77',
    '-s 203.0.113.5',
    '-d 10.244.0.0/16',
    '! -d 10.244.0.0/16'
  ],
  ...['-d 10.9.9.9', '-i cni0', '! -i cni0', '-i eth0', '-o docker0', '! -o eth0', '-o cni0'],
  ...['-m conntrack --ctstate NEW', '-m conntrack ! --ctstate RELATED,ESTABLISHED']
]
const conditions = fc.oneof(
  { weight: 2, arbitrary: fc.constant('') },
  { weight: 3, arbitrary: fc.constantFrom(...conditionTexts) },
  fc.tuple(fc.constantFrom(...conditionTexts), fc.constantFrom(...conditionTexts)).map((two) => two.join(' '))
)
const verdicts = fc.constantFrom('-j DROP', '-j DROP', '-j REJECT', '-j ACCEPT', '-j RETURN')
const ruleIn = (chain: string, calls: readonly string[]) =>
  fc
    .tuple(conditions, fc.oneof(verdicts, ...(calls.length > 0 ? [fc.constantFrom(...calls)] : [])))
    // Calls are not for new connections only: of what is accepted in such a chain nothing is known.
    .map(([condition, target]) => [
      calls.includes(target) ? condition.replaceAll(/-m conntrack .*?--ctstate \S+/g, '') : condition,
      target
    ])
    .map((parts) => ['-A', chain, ...parts].join(' ').replaceAll(/ +/g, ' '))
const rulesets = fc
  .tuple(
    fc.array(ruleIn('FORWARD', ['-j ADMIN', '-g ADMIN', '-j DOCKER-USER', '-j INNER']), { maxLength: 4 }),
    fc.array(ruleIn('ADMIN', ['-j INNER', '-g INNER']), { maxLength: 3 }),
    fc.array(ruleIn('DOCKER-USER', ['-j INNER']), { maxLength: 3 }),
    fc.array(ruleIn('INNER', []), { maxLength: 3 })
  )
  .map((parts) => parts.flat())
/** 100,000 of them held on 2026-11-29; these take a second. */
const RUNS = 400
const policies = fc.constantFrom('ACCEPT' as const, 'DROP' as const)

test('whatever the rules: no drop that names pods is opened, narrowed ones only between pods; those of everything are', () => {
  fc.assert(
    fc.property(policies, rulesets, (policy, rules) => {
      const tables = saved(policy, rules)
      const [table] = tables
      assert.ok(table)
      const drops = foreignDrops(tables, { 4: pods }, side)
      const accepts = foreignAccepts(drops).map((accept) => ({ accept, at: placeFor(table, accept, side) }))
      const isReported = unansweredReasons(drops).length > 0
      for (const packet of packets) check(table, accepts, packet, isReported)
    }),
    { numRuns: RUNS }
  )
})
