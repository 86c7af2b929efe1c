// The manifests of deploy/ against Kubernetes' schemas, against each other, and against what weftd understands.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import type { DaemonSet } from 'kubernetes-types/apps/v1.js'
import type { ConfigMap, Container, Namespace } from 'kubernetes-types/core/v1.js'
import type { ClusterRole, ClusterRoleBinding, Role } from 'kubernetes-types/rbac/v1.js'
import { parse } from 'yaml'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import type { Options } from '../../../daemon/cli/flag-table.ts'
import { parseCommand } from '../../../daemon/cli/subcommands.ts'
import { parseNetConf } from '../../../daemon/config/net-conf.ts'
import { checkedConflist, DEFAULT_CONFLIST } from '../../../daemon/lifecycle/conflist.ts'
import { formatIp } from '../../../ipam/address.ts'
import { deployFolder, manifestFiles, manifests, only } from './manifests.ts'
import { schemaFaults } from './typed.ts'

const backends = registry(BACKENDS)
const daemonSet = only<DaemonSet>('DaemonSet')
const pod = daemonSet.spec?.template.spec
assert.ok(pod)
const [weftd] = pod.containers
const [install] = pod.initContainers ?? []
assert.ok(weftd && install)

/** Command line without the program. */
const words = ({ command = [], args = [] }: Container): readonly string[] => [...command, ...args].slice(1)

function optionsOf(container: Container): Options {
  const env = Object.fromEntries((container.env ?? []).map(({ name, value }) => [name, value]))
  const command = parseCommand(words(container), env)
  assert.ok(command.kind === 'daemon')
  const { parsed } = command
  assert.ok(parsed.kind === 'run', parsed.kind === 'wrong' ? parsed.errors.map(String).join('\n') : parsed.kind)
  return parsed.options
}

test("every object is valid by Kubernetes' own schemas", () => assert.equal(schemaFaults(manifests), ''))

test('the check by schemas sees unknown fields, wrong types and wrong words', () => {
  const broken = structuredClone(daemonSet) as DaemonSet & { spec: { template: { spec: Record<string, unknown> } } }
  broken.spec.template.spec.hostNetwrok = true
  assert.match(schemaFaults([broken]), /hostNetwrok/)
  assert.match(
    schemaFaults([{ apiVersion: 'v1', kind: 'ConfigMap', data: { a: 1 } } as unknown as ConfigMap]),
    /number/
  )
})

test('namespace and account stand before what needs them, in the order in which kubectl reads the folder', () => {
  assert.deepEqual(
    manifests.map(({ kind }) => kind),
    [
      ...['Namespace', 'ServiceAccount', 'ClusterRole', 'ClusterRoleBinding'],
      ...['Role', 'RoleBinding', 'Role', 'RoleBinding', 'ConfigMap', 'DaemonSet']
    ]
  )
})

test('the kustomization lists the same files, and is none of them', () => {
  const { resources } = parse(readFileSync(`${deployFolder}Kustomization`, 'utf8')) as { resources: readonly string[] }
  assert.deepEqual(resources, manifestFiles)
})

test('everything that has a namespace is in ours, whose label lets the pods in', () => {
  const namespace = only<Namespace>('Namespace')
  assert.equal(namespace.metadata?.labels?.['pod-security.kubernetes.io/enforce'], 'privileged')
  const inside = manifests.filter(
    ({ kind, metadata }) =>
      !/^(Namespace|ClusterRole|ClusterRoleBinding)$/.test(kind ?? '') &&
      // Where events about nodes are.
      !(/^Role/.test(kind ?? '') && metadata?.namespace === 'default')
  )
  for (const { kind, metadata } of inside) assert.equal(metadata?.namespace, namespace.metadata?.name, `${kind}`)
  for (const { kind, metadata } of manifests)
    assert.equal(metadata?.labels?.['app.kubernetes.io/name'], 'weft', `${kind}`)
  assert.equal(only<ClusterRoleBinding>('ClusterRoleBinding').subjects?.[0]?.namespace, namespace.metadata?.name)
})

test('the role names no verb that changes anything but the status of nodes and events', () => {
  const changing = only<ClusterRole>('ClusterRole').rules?.flatMap(({ resources = [], verbs }) =>
    verbs.filter((verb) => !/^(get|list|watch)$/.test(verb)).map((verb) => `${verb} ${resources.join()}`)
  )
  assert.deepEqual(changing, ['patch nodes/status', 'create events', 'patch events'])
  assert.ok(!JSON.stringify(manifests).includes('"*"'))
})

test('weftd may read the DaemonSet that it is told to be of, and no other', () => {
  const name = `${daemonSet.metadata?.namespace}/${daemonSet.metadata?.name}`
  assert.equal(optionsOf(weftd).kubeDaemonset, name)
  const role = manifests.find(
    (object): object is Role => object.kind === 'Role' && object.metadata?.namespace === 'weft'
  )
  const [rule, ...others] = role?.rules ?? []
  assert.deepEqual(others, [])
  assert.deepEqual(rule, {
    apiGroups: ['apps'],
    resources: ['daemonsets'],
    resourceNames: [daemonSet.metadata?.name],
    verbs: ['get', 'list', 'watch']
  })
})

test('weftd understands its command line, and probes ask where it listens', () => {
  const options = optionsOf(weftd)
  assert.equal(options.store, 'kubernetes')
  for (const probe of [weftd.livenessProbe, weftd.readinessProbe, weftd.startupProbe])
    assert.deepEqual([probe?.httpGet?.host, probe?.httpGet?.port], [formatIp(options.healthzIp), options.healthzPort])
  assert.equal(weftd.livenessProbe?.httpGet?.path, '/healthz')
  assert.equal(weftd.readinessProbe?.httpGet?.path, '/readyz')
})

test('the install step puts plugins where weftd would take them away', () => {
  const command = parseCommand(words(install), {})
  assert.ok(command.kind === 'install')
  assert.equal(command.flags.cniBinDir, optionsOf(weftd).cniBinDir)
})

test('every path that weftd is told of is mounted, and every volume is used', () => {
  const options = optionsOf(weftd)
  const mounted = (weftd.volumeMounts ?? []).map(({ mountPath }) => mountPath)
  const paths = [
    options.netConfigPath,
    options.cniConfSource,
    options.cniConfDir,
    options.cniBinDir,
    options.subnetFile,
    options.stateDir
  ]
  for (const path of paths)
    assert.ok(
      mounted.some((mount) => path === mount || path?.startsWith(`${mount}/`)),
      `${path}`
    )
  const used = [...(install.volumeMounts ?? []), ...(weftd.volumeMounts ?? [])].map(({ name }) => name)
  assert.deepEqual(new Set(used), new Set(pod.volumes?.map(({ name }) => name)))
})

test('the network configuration and the list of the ConfigMap are valid, and the list is the one that weftd writes by itself', () => {
  const { data = {} } = only<ConfigMap>('ConfigMap')
  const conf = parseNetConf(data['net-conf.json'] ?? '', 'the ConfigMap')
  backends.configure(conf.backendType, conf.backend)
  const list = data['cni-conf.json'] ?? ''
  assert.deepEqual(JSON.parse(checkedConflist(list, 'the ConfigMap')), JSON.parse(DEFAULT_CONFLIST))
})

test('both containers run the same image without privileges, root file system or capabilities beyond those named', () => {
  assert.equal(install.image, weftd.image)
  for (const { securityContext: context, name } of [install, weftd]) {
    assert.equal(context?.privileged, undefined, name)
    assert.equal(context?.readOnlyRootFilesystem, true, name)
    assert.equal(context?.allowPrivilegeEscalation, false, name)
    assert.deepEqual(context?.capabilities?.drop, ['ALL'], name)
  }
  assert.equal(pod.securityContext?.seccompProfile?.type, 'RuntimeDefault')
})

test('the pod runs on every node, before all others, and is replaced one by one', () => {
  assert.deepEqual(pod.tolerations, [{ operator: 'Exists' }])
  assert.equal(pod.priorityClassName, 'system-node-critical')
  assert.equal(pod.hostNetwork, true)
  assert.deepEqual(daemonSet.spec?.updateStrategy, { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } })
  assert.deepEqual(daemonSet.spec?.selector.matchLabels, daemonSet.spec?.template.metadata?.labels)
})
