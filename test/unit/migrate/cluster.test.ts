// A cluster's move in its objects: flannel's DaemonSet kept off moved nodes without a restart, Weft's with flannel's
// settings on moved nodes only, and the plan.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  BEFORE,
  clusterPlan,
  configMapsOf,
  type DaemonSet,
  excludingPatch,
  flagsFrom,
  flannelSets,
  type KubeObject,
  LABEL,
  restoringPatch,
  weftObjects
} from '../../../daemon/migrate/cluster.ts'

/** As in flannel's published manifest. */
const affinity = {
  nodeAffinity: {
    requiredDuringSchedulingIgnoredDuringExecution: {
      nodeSelectorTerms: [{ matchExpressions: [{ key: 'kubernetes.io/os', operator: 'In', values: ['linux'] }] }]
    }
  }
}
const podIp = { name: 'FLANNELD_PUBLIC_IP', valueFrom: { fieldRef: { fieldPath: 'status.hostIP' } } }
const set: DaemonSet = {
  metadata: { name: 'kube-flannel-ds', namespace: 'kube-flannel' },
  spec: {
    template: {
      spec: {
        containers: [
          {
            name: 'kube-flannel',
            command: ['/opt/bin/flanneld'],
            args: ['--ip-masq', '--kube-subnet-mgr', '--iface', 'eth1', '--iface-can-reach=$(GATEWAY)'],
            env: [{ name: 'POD_NAME', value: 'x' }, podIp, { name: 'GATEWAY', value: '192.0.2.1' }]
          }
        ],
        volumes: [{ configMap: { name: 'kube-flannel-cfg' } }],
        affinity
      }
    }
  }
}
const netConf = '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
const data = { 'net-conf.json': netConf, 'cni-conf.json': '{}' }

test('flanneld is found by its program, and its configuration by its volumes', () => {
  const other = { ...set, spec: { template: { spec: { containers: [{ name: 'x', command: ['/bin/other'] }] } } } }
  assert.deepEqual(flannelSets([other, set]), [set])
  assert.deepEqual(configMapsOf(set), ['kube-flannel-cfg'])
})

test('its flags are taken over but those that Weft’s deployment sets itself; an unknown one is a fault', () => {
  assert.deepEqual(flagsFrom(set), { flags: ['--ip-masq', '--iface=eth1', '--iface-can-reach=$(GATEWAY)'], faults: [] })
  const [container] = set.spec.template.spec.containers
  const odd = { ...set, spec: { template: { spec: { containers: [{ ...container, name: 'x', args: ['--odd=1'] }] } } } }
  assert.match(String(flagsFrom(odd).faults[0]), /no flag --odd/)
})

const expressions = (found: unknown) =>
  JSON.stringify(found).match(new RegExp(`"key":"${LABEL}","operator":"(NotIn|In)"`, 'g'))?.length ?? 0

test('flannel’s pods are kept off moved nodes once, and not restarted; the way back restores every byte', () => {
  const patch = excludingPatch(set) as {
    readonly metadata: { readonly annotations: Readonly<Record<string, string>> }
    readonly spec: DaemonSet['spec']
  }
  assert.equal(expressions(patch.spec), 1)
  assert.match(JSON.stringify(patch), /kubernetes\.io\/os/)
  assert.deepEqual(patch.spec.updateStrategy, { type: 'OnDelete', rollingUpdate: null })
  const patched: DaemonSet = {
    metadata: { ...set.metadata, annotations: patch.metadata.annotations },
    spec: { template: { spec: { ...set.spec.template.spec, ...patch.spec.template.spec } } }
  }
  assert.equal(expressions(excludingPatch(patched).spec), 1, 'a second time changes nothing')
  assert.deepEqual(excludingPatch(patched).metadata, patch.metadata)
  assert.deepEqual(restoringPatch(patched), {
    metadata: { annotations: { [BEFORE]: null } },
    spec: { updateStrategy: { type: 'RollingUpdate' }, template: { spec: { affinity } } }
  })
  assert.equal(restoringPatch(set), undefined)
})

const manifests: readonly KubeObject[] = [
  { kind: 'Namespace', metadata: { name: 'weft' } },
  { kind: 'ConfigMap', metadata: { name: 'weft-config' }, data: { 'net-conf.json': '{}', 'cni-conf.json': '1' } },
  {
    kind: 'DaemonSet',
    metadata: { name: 'weft' },
    spec: {
      template: {
        spec: {
          containers: [
            { name: 'weftd', command: ['weftd', '--ip-masq', '--kube-subnet-mgr'], env: [{ name: 'POD_NAME' }] }
          ]
        }
      }
    }
  }
]

test('Weft’s objects get flannel’s configuration, flags and variables, those from fields too, and the label', () => {
  const [namespace, config, weft] = weftObjects(manifests, set, data)
  assert.deepEqual([namespace, config?.data], [manifests[0], data])
  const { containers, affinity: own } = (weft as unknown as DaemonSet).spec.template.spec
  assert.deepEqual(containers[0]?.command, [
    ...['weftd', '--kube-subnet-mgr', '--ip-masq', '--iface=eth1', '--iface-can-reach=$(GATEWAY)']
  ])
  assert.deepEqual(containers[0]?.env, [{ name: 'POD_NAME' }, podIp, { name: 'GATEWAY', value: '192.0.2.1' }])
  assert.equal(expressions(own), 1)
})

test('the plan names each node once with what it has, and the gap by the backend', () => {
  const nodes = [
    { name: 'a', isMoved: true, hasFlannel: false },
    { name: 'b', isMoved: false, hasFlannel: true },
    { name: 'c', isMoved: false, hasFlannel: false }
  ]
  const plan = clusterPlan({ sets: [set], data, nodes })
  assert.deepEqual(plan.faults, [])
  assert.match(plan.gap, /^none/)
  assert.deepEqual(plan.found.slice(1), ['nodes with flannel: b', 'nodes with Weft: a'])
  assert.equal(plan.steps.filter((step) => /^b: /.test(step)).length, 1)
})

for (const [what, facts, pattern] of [
  ['no flannel', { sets: [] }, /no DaemonSet runs flanneld/],
  ['two of them', { sets: [set, set], data }, /several DaemonSets/],
  ['no configuration', { sets: [set] }, /no ConfigMap of kube-flannel\/kube-flannel-ds has net-conf\.json/],
  ['a backend that Weft lacks', { sets: [set], data: { 'net-conf.json': '{"Backend":{"Type":"ipsec"}}' } }, /"ipsec"/]
] as const) {
  test(`${what} is a fault`, () => {
    const { faults } = clusterPlan({ nodes: [], ...facts })
    assert.equal(faults.length, 1, JSON.stringify(faults))
    assert.match(String(faults[0]?.message), pattern)
  })
}

test('a configuration that is no object is flannel’s default backend, as flanneld has it, and no exception', () => {
  for (const text of ['null', '7', '{', '{"Backend":null}'])
    assert.match(
      String(clusterPlan({ sets: [set], data: { 'net-conf.json': text }, nodes: [] }).found[0]),
      /backend udp$/
    )
})
