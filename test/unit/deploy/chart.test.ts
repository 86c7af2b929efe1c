// The chart against the manifests, rendered by a real helm; and the kustomization, by kubectl.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import type { DaemonSet } from 'kubernetes-types/apps/v1.js'
import type { ConfigMap } from 'kubernetes-types/core/v1.js'
import { deployFolder, type Manifest, manifests, objectsOf } from './manifests.ts'
import { schemaFaults } from './typed.ts'

const root = join(deployFolder, '..')

/** The helm of scripts/helm, if it was built: a unit test builds nothing. */
function helmPath(): string | undefined {
  const [, version = ''] = /^helm_version=(.*)$/m.exec(readFileSync(join(root, 'scripts/helm'), 'utf8')) ?? []
  const built = join(process.env.WEFT_CACHE ?? join(homedir(), '.cache/weft'), 'helm', version, 'helm')
  return [process.env.WEFT_HELM, built].find((path) => path !== undefined && existsSync(path))
}
const helm = helmPath()
const needsHelm = { skip: helm === undefined ? 'helm is not there: scripts/helm builds it' : false }

const chart = join(deployFolder, 'chart')
/** A helm built by hand takes itself for that of an old cluster. */
const VERSION = ['--kube-version', '1.32.0'] as const

/** The first that answers; kubectl's kustomize needs no cluster. */
const kubectl = [join(process.env.WEFT_CACHE ?? join(homedir(), '.cache/weft'), 'kube/bin/kubectl'), 'kubectl'].find(
  (path) => spawnSync(path, ['kustomize', '--help']).status === 0
)
const needsKubectl = { skip: kubectl === undefined ? 'kubectl is not there: scripts/kube-parts builds it' : false }

function run(
  file: string,
  args: readonly string[]
): { readonly ok: boolean; readonly out: string; readonly err: string } {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: 'utf8' })
  return { ok: status === 0, out: stdout, err: stderr }
}

/** `helm template` with values. */
function rendered(values: object = {}): readonly Manifest[] {
  const { ok, out, err } = template(values)
  assert.ok(ok, err)
  return objectsOf(out)
}

function template(values: object) {
  const folder = mkdtempSync(join(tmpdir(), 'weft-chart-'))
  try {
    // JSON is YAML.
    writeFileSync(join(folder, 'values.yaml'), JSON.stringify(values))
    const words = ['template', 'weft', chart, '--values', join(folder, 'values.yaml'), ...VERSION]
    return run(helm ?? '', words)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function kustomized(folder: string): readonly Manifest[] {
  const { ok, out, err } = run(kubectl ?? '', ['kustomize', folder])
  assert.ok(ok, err)
  return objectsOf(out)
}

/** deploy/ with the component monitoring. */
function withMonitoring(): readonly Manifest[] {
  const folder = mkdtempSync(join(tmpdir(), 'weft-kustomize-'))
  try {
    for (const name of readdirSync(deployFolder))
      if (/\.yaml$|^Kustomization$|^monitoring$/.test(name))
        cpSync(join(deployFolder, name), join(folder, name), { recursive: true })
    const kustomization = join(folder, 'Kustomization')
    writeFileSync(kustomization, `${readFileSync(kustomization, 'utf8')}components: [monitoring]\n`)
    return kustomized(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** By kind, namespace and name; JSON in ConfigMaps as what it says. */
function comparable(objects: readonly Manifest[]): ReadonlyMap<string, unknown> {
  const entries = objects.map((object): readonly [string, unknown] => {
    const key = `${object.kind} ${object.metadata?.namespace ?? ''}/${object.metadata?.name}`
    if (object.kind !== 'ConfigMap') return [key, object]
    const data = Object.entries((object as ConfigMap).data ?? {}).map(([name, text]) => [name, JSON.parse(text)])
    return [key, { ...object, data: Object.fromEntries(data) }]
  })
  assert.equal(new Map(entries).size, entries.length, 'an object is there twice')
  return new Map(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

const daemonSetOf = (objects: readonly Manifest[]): DaemonSet =>
  objects.find((object): object is DaemonSet => object.kind === 'DaemonSet') ?? assert.fail('no DaemonSet')
const podOf = (objects: readonly Manifest[]) => daemonSetOf(objects).spec?.template.spec ?? assert.fail('no pod')

test('the kustomization renders the manifests as they are', needsKubectl, () => {
  assert.deepEqual(comparable(kustomized(deployFolder)), comparable(manifests))
})

test('the chart renders the manifests as they are', needsHelm, () => {
  assert.deepEqual(comparable(rendered()), comparable(manifests))
})

test('no other configuration replaces the pods: weftd takes it, or refuses it', needsHelm, () => {
  const of = (config: object) => daemonSetOf(rendered({ config }))
  const usual = of({})
  assert.deepEqual(of({ network: { Network: '10.9.0.0/16', Backend: { Type: 'host-gw' } } }), usual)
  assert.deepEqual(of({ list: { cniVersion: '1.0.0', name: 'a', plugins: [{ type: 'weft' }] } }), usual)
})

test('the chart with monitoring renders what the component monitoring adds', {
  skip: needsHelm.skip || needsKubectl.skip
}, () => {
  const added = comparable(withMonitoring())
  assert.deepEqual(comparable(rendered({ monitoring: { enabled: true } })), added)
  assert.equal(added.size, manifests.length + 4)
})

test('with monitoring weftd listens on the address of the node, where the probes look too', needsKubectl, () => {
  const [weftd] = podOf(withMonitoring()).containers
  const variable = weftd?.env?.find(({ name }) => name === 'WEFTD_HEALTHZ_IP')
  assert.deepEqual(variable?.valueFrom, { fieldRef: { fieldPath: 'status.hostIP' } })
  for (const probe of [weftd?.livenessProbe, weftd?.readinessProbe, weftd?.startupProbe])
    assert.deepEqual([probe?.httpGet?.host, probe?.httpGet?.port], [undefined, 8471])
})

test('helm lint has nothing to say', needsHelm, () => {
  const { ok, out, err } = run(helm ?? '', ['lint', '--strict', chart, ...VERSION])
  assert.ok(ok, out + err)
})

test('every value of the chart reaches the objects, which stay valid', needsHelm, () => {
  const values = {
    namespace: { name: 'net', create: false },
    image: { repository: 'example.org/weft', tag: 'x', pullPolicy: 'Always', pullSecrets: [{ name: 'key' }] },
    config: { existing: 'kube-flannel-cfg' },
    ipMasq: false,
    args: ['--iface=eth1', '--v=1'],
    env: { WEFTD_KUBE_API_URL: 'https://api.example.org' },
    cni: { binDir: '/var/lib/rancher/bin', confDir: '/var/lib/rancher/cni/net.d', replaceForeign: true },
    healthz: { port: 9000, onNode: true },
    priorityClassName: 'other',
    nodeSelector: { a: 'b' },
    tolerations: [{ key: 'c', operator: 'Exists' }],
    maxUnavailable: '10%',
    capabilities: ['SYS_PTRACE'],
    resources: { requests: { cpu: '1' } }
  }
  const objects = rendered(values)
  assert.equal(schemaFaults(objects), '')
  const pod = podOf(objects)
  const [weftd] = pod.containers
  const [install] = pod.initContainers ?? []
  assert.ok(weftd && install)
  for (const { metadata, kind } of objects)
    if (!/^Cluster/.test(kind ?? '') && metadata?.namespace !== 'default')
      assert.equal(metadata?.namespace, 'net', `${kind}`)
  assert.ok(!objects.some(({ kind }) => kind === 'Namespace' || kind === 'ConfigMap'))
  assert.equal(weftd.image, 'example.org/weft:x')
  assert.equal(install.image, weftd.image)
  assert.ok(install.command?.includes('--replace-foreign'))
  const command = weftd.command ?? []
  for (const word of [
    '--iface=eth1',
    '--kube-daemonset=net/weft',
    '--cni-conf-dir=/var/lib/rancher/cni/net.d',
    '--healthz-port=9000'
  ])
    assert.ok(command.includes(word), word)
  assert.ok(!command.includes('--ip-masq'))
  assert.ok(
    weftd.env?.some(({ name, value }) => name === 'WEFTD_KUBE_API_URL' && value === values.env.WEFTD_KUBE_API_URL)
  )
  assert.deepEqual(weftd.livenessProbe?.httpGet, { port: 9000, path: '/healthz' })
  assert.ok(weftd.securityContext?.capabilities?.add?.includes('SYS_PTRACE'))
  assert.deepEqual(weftd.resources?.requests, { cpu: '1', memory: '64Mi' })
  const paths = Object.fromEntries(
    (pod.volumes ?? []).map(({ name, hostPath, configMap }) => [name, hostPath?.path ?? configMap?.name])
  )
  assert.equal(paths['cni-bin'], '/var/lib/rancher/bin')
  assert.equal(paths['cni-conf'], '/var/lib/rancher/cni/net.d')
  assert.equal(paths.config, 'kube-flannel-cfg')
  assert.ok(weftd.volumeMounts?.some(({ mountPath }) => mountPath === '/var/lib/rancher/cni/net.d'))
  assert.deepEqual(
    [pod.priorityClassName, pod.nodeSelector, pod.tolerations],
    ['other', { 'kubernetes.io/os': 'linux', a: 'b' }, values.tolerations]
  )
  assert.equal(daemonSetOf(objects).spec?.updateStrategy?.rollingUpdate?.maxUnavailable, '10%')
})

test('with udpProxy a container of its own carries packets, and weftd starts none', needsHelm, () => {
  const objects = rendered({ udpProxy: { enabled: true } })
  assert.equal(schemaFaults(objects), '')
  const [weftd, proxy, ...others] = podOf(objects).containers
  assert.deepEqual([weftd?.name, proxy?.name, others.length], ['weftd', 'udp-proxy', 0])
  assert.ok(weftd?.command?.includes('--udp-proxy=external'))
  assert.deepEqual(proxy?.command, ['weftd', 'udp-proxy'])
  assert.deepEqual(proxy?.securityContext?.capabilities?.add, ['NET_ADMIN'])
  const paths = [weftd, proxy].map((each) => each?.volumeMounts?.map(({ mountPath }) => mountPath) ?? [])
  assert.ok(paths[0]?.includes('/dev/net'))
  assert.deepEqual(paths[1], ['/run/weft', '/dev/net'])
})

const wrong: readonly (readonly [what: string, values: object, said: RegExp])[] = [
  ['a misspelled one', { ipMasquerade: true }, /ipMasquerade/],
  ['a variable that is none of weftd', { env: { IFACE: 'eth1' } }, /IFACE/],
  ['a port beyond the last', { healthz: { port: 70_000 } }, /port/],
  ['a list without plugins', { config: { list: { cniVersion: '1.0.0', name: 'a', plugins: [] } } }, /plugins/]
]
for (const [what, values, said] of wrong) {
  test(`the chart refuses a value that is wrong: ${what}`, needsHelm, () => {
    const { ok, err } = template(values)
    assert.ok(!ok)
    assert.match(err, said)
  })
}
