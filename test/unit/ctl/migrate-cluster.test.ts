// kubectl weft migrate against objects in memory: node by node, a stop at the first fault, on from there, and back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { run } from '../../../daemon/ctl/run.ts'
import { type DaemonSet, LABEL, MOVED } from '../../../daemon/migrate/cluster.ts'

type Labels = Record<string, string>

/** What kubectl reads and changes here: two DaemonSets that follow the label of each node at once. */
class Objects {
  readonly labels: ReadonlyMap<string, Labels>
  set: DaemonSet = {
    metadata: { name: 'kube-flannel-ds', namespace: 'kube-flannel' },
    spec: {
      template: {
        spec: {
          containers: [{ name: 'kube-flannel', command: ['/opt/bin/flanneld'], args: ['--kube-subnet-mgr'] }],
          volumes: [{ configMap: { name: 'kube-flannel-cfg' } }]
        }
      }
    }
  }
  /** Nodes whose weftd does not reach others. */
  readonly broken = new Set<string>()
  readonly done: string[] = []

  constructor(...nodes: readonly string[]) {
    this.labels = new Map(nodes.map((name) => [name, {}]))
  }

  moved = (): readonly string[] =>
    [...this.labels].filter(([, labels]) => labels[LABEL] === MOVED).map(([name]) => name)

  answer(words: readonly string[], input: string | undefined): unknown {
    const [verb, kind] = words
    if (verb === 'get' && kind === 'daemonsets') return { items: [this.set] }
    if (verb === 'get' && kind === 'nodes')
      return { items: [...this.labels].map(([name, labels]) => ({ metadata: { name, labels } })) }
    if (verb === 'get' && kind === 'configmap')
      return { data: { 'net-conf.json': '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}' } }
    if (verb === 'get' && kind === 'pods') return this.pods(words)
    if (verb === 'create') return { kind: 'Namespace', metadata: { name: 'weft' } }
    if (verb === 'exec') return this.inPod(words)
    if (verb === 'label') return this.label(words[2] ?? '', words[3] ?? '')
    this.done.push(verb === 'apply' ? `apply ${(JSON.parse(input ?? '') as { kind: string }).kind}` : `${verb} ${kind}`)
    if (verb === 'patch') this.patch(JSON.parse(words[words.indexOf('--patch') + 1] ?? '') as Patch)
    return {}
  }

  private patch({ metadata, spec }: Patch): void {
    const annotations = Object.fromEntries(Object.entries(metadata.annotations).filter(([, value]) => value !== null))
    const template = { spec: { ...this.set.spec.template.spec, ...spec.template.spec } }
    this.set = { metadata: { ...this.set.metadata, annotations }, spec: { ...spec, template } } as DaemonSet
  }

  private label(node: string, value: string): object {
    const labels = this.labels.get(node) ?? assert.fail(node)
    if (value.endsWith('-')) delete labels[LABEL]
    else labels[LABEL] = MOVED
    this.done.push(`label ${node} ${value}`)
    return {}
  }

  private pods(words: readonly string[]): unknown {
    const moved = this.moved()
    if (words.includes('--all-namespaces')) return moved.map((node) => `weft weft-${node} ${node}\n`).join('')
    const items = [...this.labels.keys()]
      .filter((name) => !moved.includes(name))
      .map((nodeName) => ({
        metadata: { name: `f-${nodeName}`, ownerReferences: [{ name: 'kube-flannel-ds' }] },
        spec: { nodeName },
        status: { conditions: [{ type: 'Ready', status: 'True' }] }
      }))
    return { items }
  }

  private inPod(words: readonly string[]): unknown {
    const node = String(words.find((word) => word.startsWith('weft-'))).slice('weft-'.length)
    if (words.includes('status')) return STATUS
    if (words.includes('peers')) return { node, key: node, peers: this.broken.has(node) ? [LOST] : [] }
    this.done.push(`${node} ${words.at(-1)}`)
    return {}
  }
}

type Patch = { readonly metadata: { readonly annotations: Labels }; readonly spec: DaemonSet['spec'] }
const STATUS = {
  ...{ version: '1', ready: true, startedAt: '2026-01-01T00:00:00Z', node: 'a', store: 'kubernetes', backend: 'vxlan' },
  ...{ network: [], subnet: [], publicIp: [], peers: 0, pods: 0, conditions: [] }
}
const way = { way: 'pods', family: 'ipv4', verdict: 'lost', text: 'c does not answer', since: '2026-01-01T00:00:00Z' }
const LOST = { key: 'k', node: 'c', publicIp: [], subnet: [], ways: [way] }

async function migrate(objects: Objects, ...words: readonly string[]) {
  let out = ''
  const print = (text: string) => {
    out += text
  }
  const exit = await run(['migrate', ...words], {
    env: {},
    version: '1',
    isPlugin: true,
    kubectl: async ([, ...rest], _deadline, input) => {
      const answer = objects.answer(rest, input)
      return { exit: 0, stdout: typeof answer === 'string' ? answer : JSON.stringify(answer), stderr: '' }
    },
    out: print,
    complain: print
  })
  return { exit, out }
}

test('plan names the nodes and changes nothing', async () => {
  const objects = new Objects('a', 'b')
  const { exit, out } = await migrate(objects, 'plan')
  assert.equal(exit, 0, out)
  assert.match(out, /nodes with flannel: a, b[\s\S]*a: label it[\s\S]*b: label it[\s\S]*lost: none/)
  assert.deepEqual(objects.done, [])
})

test('apply stops at the first node with a fault, says how to go on or back, and goes on from there', async () => {
  const objects = new Objects('a', 'b', 'c')
  objects.broken.add('b')
  const { exit, out } = await migrate(objects, 'apply', '--wait=1')
  assert.equal(exit, 1)
  assert.match(out, /stopped: node b: after 1 s weftd does not reach c: c does not answer/)
  assert.match(out, /"kubectl weft migrate apply" goes on .* "kubectl weft migrate rollback" goes back/)
  assert.deepEqual(objects.moved(), ['a', 'b'])
  assert.deepEqual(objects.done, [
    ...['apply List', 'patch daemonset', `label a ${LABEL}=${MOVED}`, 'a apply-in-pod', `label b ${LABEL}=${MOVED}`]
  ])

  objects.broken.clear()
  assert.equal((await migrate(objects, 'apply', '--wait=1')).exit, 0)
  assert.deepEqual(objects.moved(), ['a', 'b', 'c'])
  assert.equal(objects.done.at(-1), 'c apply-in-pod')
})

test('rollback goes back node by node, each with its list and plugins first, and restores the DaemonSet', async () => {
  const objects = new Objects('a', 'b')
  const before = objects.set
  await migrate(objects, 'apply', '--wait=1')
  objects.done.length = 0
  const { exit, out } = await migrate(objects, 'rollback', '--wait=1')
  assert.equal(exit, 0, out)
  assert.deepEqual(objects.moved(), [])
  assert.deepEqual(objects.done, [
    ...['patch daemonset', 'a rollback-in-pod', `label a ${LABEL}-`, 'b rollback-in-pod', `label b ${LABEL}-`],
    'patch daemonset'
  ])
  assert.deepEqual(objects.set.metadata, { ...before.metadata, annotations: {} })
  assert.deepEqual(objects.set.spec.template.spec, { ...before.spec.template.spec, affinity: null })
})
