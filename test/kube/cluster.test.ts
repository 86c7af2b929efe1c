// A real cluster made a network by `kubectl apply -f deploy/`: pods, host ports, services and names; nodes that come
// and go; an upgrade under traffic; the way out.
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { linesOf } from '../lab/cluster.ts'
import type { Host } from '../lab/host.ts'
import { until } from '../lab/run.ts'
import { podTraces } from '../lab/traces.ts'
import { conditionOf, isReady, type Pod } from './api.ts'
import { KubeCluster } from './cluster.ts'
import {
  configure,
  deployFolder,
  installWeft,
  removeWeft,
  rolledOut,
  rollWeft,
  weftArchive,
  weftLabels,
  weftPod
} from './install.ts'
import { type KubeNode, manifests } from './kube-node.ts'
import { hasPart, noCluster } from './parts.ts'
import { transferDuring } from './rolling.ts'
import {
  answeredBy,
  coredns,
  corednsArchive,
  fetchFrom,
  reachEachOther,
  webContainer,
  webDeployment,
  webPod,
  webPort,
  webService
} from './workload.ts'

const skip = noCluster()
const noNames = hasPart('coredns') ? false : 'coredns is missing; cure: scripts/kube-parts'
const hostPort = 8081
const slow = { deadlineMs: 300_000, everyMs: 200 }

describe('a cluster whose network is deploy/', { skip, timeout: 1_500_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: KubeCluster
  let web: readonly Pod[] = []

  before(
    async () => {
      const images = up.adopt(mkdtempSync(join(tmpdir(), 'weft-images-')), (path) => rmSync(path, { recursive: true }))
      const archives = noNames ? [] : [await corednsArchive(images)]
      // Both of kube-proxy's ways to change where packets go.
      const nodes = [{ proxy: 'iptables' }, { proxy: 'nftables' }] as const
      cluster = up.use(await KubeCluster.start({ nodes, images: [weftArchive(), ...archives] }))
    },
    { timeout: 400_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  const printed = async (...words: readonly string[]) => `\n${(await cluster.plane.kubectl(words)).stdout}`

  test('no node is Ready before, every node after `kubectl apply -f deploy/`', async (t) => {
    for (const node of await cluster.plane.api.nodes()) {
      assert.equal(isReady(node), false)
      assert.match(String(conditionOf(node, 'Ready')?.message), /cni plugin not initialized/)
    }
    await installWeft(cluster)
    for (const node of await cluster.plane.api.nodes())
      assert.equal(conditionOf(node, 'NetworkUnavailable')?.status, 'False')
    assert.deepEqual(await strictly(cluster), [])
    t.diagnostic(await printed('get', 'nodes', '--output', 'wide'))
  })

  test('pods of a Deployment over the nodes reach each other by address', async (t) => {
    await cluster.plane.apply(webDeployment('web', 4), webService('web'))
    web = await cluster.pods('app=web', 4)
    assert.equal(new Set(web.map(({ spec }) => spec.nodeName)).size, 2)
    const table = await reachEachOther(cluster, web)
    t.diagnostic(await printed('get', 'pods', '--all-namespaces', '--output', 'wide'))
    t.diagnostic(`\n${table}`)
  })

  test('a host port of each node leads to the pod there, from every pod and from every node', async () => {
    const container = webContainer({ ports: [{ containerPort: webPort, hostPort }] })
    await cluster.plane.apply(webDeployment('ported', 2, container))
    const ported = await cluster.pods('app=ported', 2)
    for (const target of ported) {
      const url = `http://${cluster.nodeOf(target).host.address}:${hostPort}/`
      for (const from of [...web, ...ported]) await answeredBy(cluster, from, url, [target])
      for (const { host } of cluster.nodes) {
        const { stdout } = await host.exec('busybox', ['wget', '-q', '-O', '-', url])
        assert.equal(stdout.trim(), target.metadata.name)
      }
    }
  })

  test('the address of a service leads to its pods, from pods and from nodes', async () => {
    const { spec } = await cluster.plane.api.get('/api/v1/namespaces/default/services/web')
    const url = `http://${(spec as { readonly clusterIP: string }).clusterIP}/`
    for (const from of web) await answeredBy(cluster, from, url, web)
    for (const { host } of cluster.nodes) {
      const { stdout } = await host.exec('busybox', ['wget', '-q', '-O', '-', url])
      assert.ok(
        web.some(({ metadata }) => metadata.name === stdout.trim()),
        stdout
      )
    }
  })

  test('the name of a service leads to its pods, by CoreDNS', { skip: noNames }, async () => {
    await cluster.plane.apply(...coredns(cluster.plane.dnsAddress))
    await cluster.pods('k8s-app=kube-dns', 1, 'kube-system')
    for (const from of web)
      for (const name of ['web', 'web.default.svc.cluster.local'])
        await answeredBy(cluster, from, `http://${name}/`, web)
  })

  test('the pods of Weft are replaced while pings and a TCP connection between pods lose nothing', async (t) => {
    const { api } = cluster.plane
    const earlier = (await api.pods('weft', weftLabels)).map(({ metadata }) => metadata.uid)
    const [from, to] = oneOnEach(web)
    const [near, far] = [await cluster.nodeOf(from).place(from), await cluster.nodeOf(to).place(to)]
    const address = String(to.status.podIP)
    const { value: ping, perSecond } = await transferDuring(near, far, address, () =>
      near.pingDuring(address, () => rollWeft(cluster))
    )
    const later = (await api.pods('weft', weftLabels)).map(({ metadata }) => metadata.uid)
    assert.deepEqual(
      later.filter((uid) => earlier.includes(uid)),
      []
    )
    assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
    assert.ok(perSecond.length >= 3, `${perSecond.length} s`)
    assert.deepEqual(
      perSecond.filter((bytes) => bytes === 0),
      [],
      `bytes in each second: ${perSecond.join(' ')}`
    )
    t.diagnostic(`${ping.sent} pings answered; ${perSecond.length} s of TCP without a silent second`)
  })

  test('a pod of Weft that is deleted by force takes nothing of its node along, though its token is gone at once', async () => {
    const [from, to] = oneOnEach(web)
    const node = cluster.nodeOf(from)
    const before = await weftPod(cluster, node)
    const place = await node.place(from)
    const ping = await place.pingDuring(String(to.status.podIP), async () => {
      const words = ['delete', 'pod', before.metadata.name, '--namespace=weft', '--force', '--grace-period=0']
      await cluster.plane.kubectl(words)
      const isReplaced = async () => {
        const now = await weftPod(cluster, node)
        return now.metadata.uid !== before.metadata.uid && conditionOf(now, 'Ready')?.status === 'True'
      }
      await until(isReplaced, { what: 'the pod to be replaced', ...slow })
    })
    assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
    await rolledOut(cluster)
  })

  test('without an API server, kubelet starts weftd again and runs static pods, and nobody loses a packet', async (t) => {
    const [first, second] = oneOnEach(web)
    const [node, other] = [cluster.nodeOf(first), cluster.nodeOf(second)]
    const near = await node.place(first)
    const before = await weftPod(cluster, node)
    await cluster.plane.stopApi()
    await using _ = { [Symbol.asyncDispose]: () => cluster.plane.startApi() }
    const ping = await near.pingDuring(String(second.status.podIP), async () => {
      const conditions = async () => (await node.host.http(8471, '/readyz?verbose')).body
      await until(async () => /STORE_UNREACHABLE/.test(await conditions()), {
        what: 'weftd to miss the store',
        ...slow
      })
      // What takes its time in a real outage, the store's back-off above all, needs a long one.
      if (process.env.WEFT_LONG) await sleep(120_000)
      const pid = await node.pidOf(before)
      await node.host.exec('kill', ['-KILL', pid])
      await until(
        async () =>
          !existsSync(node.host.path(`/proc/${pid}`)) && (await node.host.http(8471, '/readyz')).status === 200,
        {
          what: 'kubelet to start weftd again, and it to serve pods',
          ...slow
        }
      )
      await node.staticPod(
        'offline',
        webPod('offline', webContainer({ env: [{ name: 'POD_NAME', value: 'offline' }] }))
      )
      for (const from of [first, second]) await offlineAnswers(cluster, node, from)
    })
    assert.deepEqual(ping.lost, [], `${ping.received} of ${ping.sent} answered`)
    await cluster.plane.startApi()
    const mirror = async () =>
      (await cluster.plane.api.pod('default', `offline-${node.name}`)).status.phase === 'Running'
    await until(mirror, { what: 'the API server to know the static pod', ...slow })
    for (const { name } of [node, other]) await cluster.node(name).ready()
    await rolledOut(cluster)
    assert.equal((await weftPod(cluster, node)).metadata.uid, before.metadata.uid)
    t.diagnostic(`${ping.sent} pings answered without an API server`)
    await node.host.sh(`rm ${manifests}/offline.json`)
    await until(async () => (await sandboxAddress(node, 'offline')) === undefined, {
      what: 'the static pod to go',
      ...slow
    })
  })

  test('a node that joins on another link becomes Ready and its pods are reached; its routes go with its node object', async (t) => {
    // Behind a router, so that its pods are reached through the tunnel.
    const node = await cluster.addNode({ segment: 1 })
    await node.ready()
    await cluster.plane.kubectl(['scale', 'deployment/web', '--replicas=6'])
    const pods = await cluster.pods('app=web', 6)
    const there = pods.filter(({ spec }) => spec.nodeName === node.name)
    assert.ok(there.length > 0)
    t.diagnostic(`\n${await reachEachOther(cluster, pods)}`)
    const { spec } = await cluster.plane.api.node(node.name)
    const podCidr = String(spec.podCIDR)
    assert.ok((await routes(cluster)).some((line) => line.includes(podCidr)))
    await cluster.removeNode(node)
    await until(async () => !(await routes(cluster)).some((line) => line.includes(podCidr)), {
      what: `the routes to ${podCidr} to go`,
      deadlineMs: 60_000
    })
    await cluster.plane.kubectl(['scale', 'deployment/web', '--replicas=4'])
    web = await cluster.pods('app=web', 4)
    await reachEachOther(cluster, web)
  })

  test("flannel's own kube-flannel-cfg is a configuration: its conflist with flannel and portmap, its net-conf.json", async () => {
    const metadata = { name: 'kube-flannel-cfg', namespace: 'kube-flannel', labels: { tier: 'node', app: 'flannel' } }
    const { api } = cluster.plane
    await cluster.plane.apply(
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: metadata.namespace } },
      { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: flannelConfiguration }
    )
    const { data } = await api.get('/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg')
    await configure(cluster, data as Readonly<Record<string, string>>)
    await rollWeft(cluster)
    for (const { host } of cluster.nodes)
      assert.match((await host.exec('cat', ['/etc/cni/net.d/10-weft.conflist'])).stdout, /"type": *"flannel"/)
    const container = webContainer({ ports: [{ containerPort: webPort, hostPort: hostPort + 1 }] })
    await cluster.plane.apply(webDeployment('like-flannel', 2, container))
    const pods = await cluster.pods('app=like-flannel', 2)
    await reachEachOther(cluster, [...web, ...pods])
    for (const target of pods) {
      const url = `http://${cluster.nodeOf(target).host.address}:${hostPort + 1}/`
      for (const from of web) await answeredBy(cluster, from, url, [target])
    }
  })

  test('`kubectl delete -f deploy/` takes away all but what running pods stand on; after `apply` they are reached again', async () => {
    await removeWeft(cluster)
    for (const { host, name } of cluster.nodes) assert.deepEqual(await traces(host), [`file ${podsFile}`], name)
    await installWeft(cluster)
    await reachEachOther(cluster, web)
  })

  test('`kubectl delete -f deploy/` on nodes without pods leaves them as they were before', async () => {
    const { api } = cluster.plane
    for (const name of ['web', 'ported', 'like-flannel'])
      await api.remove(`/apis/apps/v1/namespaces/default/deployments/${name}`)
    await api.remove('/apis/apps/v1/namespaces/kube-system/deployments/coredns')
    const rest = async () => [...(await api.pods('default')), ...(await api.pods('kube-system'))].length === 0
    await until(rest, { what: 'all pods to be gone', deadlineMs: 120_000, everyMs: 200 })
    await removeWeft(cluster)
    for (const { host, name } of cluster.nodes)
      assert.deepEqual([...(await traces(host)), ...(await podTraces(host))], [], name)
  })
})

/** Two pods on different nodes. */
function oneOnEach(pods: readonly Pod[]): readonly [Pod, Pod] {
  const [first] = pods
  const second = pods.find(({ spec }) => spec.nodeName !== first?.spec.nodeName)
  assert.ok(first && second, 'all pods are on one node')
  return [first, second]
}

async function routes(cluster: KubeCluster): Promise<readonly string[]> {
  const all = await Promise.all(cluster.nodes.map(({ host }) => linesOf(host, 'ip', 'route')))
  return all.flat()
}

/** kube-flannel-cfg as kube-flannel.yml of flannel 0.28 holds it. */
const flannelConfiguration = {
  'cni-conf.json': JSON.stringify({
    name: 'cbr0',
    cniVersion: '0.3.1',
    plugins: [
      { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
      { type: 'portmap', capabilities: { portMappings: true } }
    ]
  }),
  'net-conf.json': JSON.stringify({ Network: '10.244.0.0/16', EnableNFTables: false, Backend: { Type: 'vxlan' } })
}

/** What the API server finds wrong with deploy/ when it is strict: unknown fields, deprecated ones. */
async function strictly({ plane }: KubeCluster): Promise<readonly string[]> {
  const words = ['apply', '--filename', deployFolder, '--dry-run=server', '--validate=strict']
  const { stderr } = await plane.kubectl(words)
  return stderr.split('\n').filter((line) => line !== '')
}

/** Waits until the static pod of a node answers a pod. */
async function offlineAnswers(cluster: KubeCluster, node: KubeNode, from: Pod): Promise<void> {
  const answers = async () => {
    const address = await sandboxAddress(node, 'offline')
    if (address === undefined) throw new Error('it has no sandbox with an address')
    const body = await fetchFrom(cluster, from, `http://${address}:${webPort}/`)
    if (body !== 'offline') throw new Error(`${address}: ${body}`)
    return true
  }
  const what = `the static pod on ${node.name} to answer a pod on ${from.spec.nodeName}`
  await until(answers, { what, ...slow }).catch((cause: unknown) => {
    const lines = node.log('kubelet').split('\n')
    const said = lines.filter((line) => line.includes('offline')).slice(-20)
    throw new Error(`${cause instanceof Error ? cause.message : cause}; kubelet says:\n${said.join('\n')}`, { cause })
  })
}

/** The address of a node's pod as its runtime knows it, for times without an API server. */
async function sandboxAddress({ name, containerd: { cri } }: KubeNode, pod: string): Promise<string | undefined> {
  for (const id of await cri.podSandboxes()) {
    const { isReady, ip, details } = await cri.podSandboxStatus(id)
    const { metadata } = details.config as { readonly metadata: { readonly name: string } }
    if (isReady && ip !== '' && metadata.name === `${pod}-${name}`) return ip
  }
  return undefined
}

/** What weftd must know of pods that it will find again. */
const podsFile = '/run/weft/pods.json'

/** What of Weft is on a node: devices, routes, rules, files but for an empty lock. */
async function traces(host: Host): Promise<readonly string[]> {
  const links = (await host.ip('link', 'show')) as readonly { readonly ifname: string }[]
  const tables = await linesOf(host, 'nft', 'list', 'tables')
  const find = 'find /opt/cni/bin /etc/cni /run/weft /run/flannel ! -type d ! -name weftd.lock 2>/dev/null || true'
  return [
    ...links.filter(({ ifname }) => ifname.startsWith('weft.')).map(({ ifname }) => `link ${ifname}`),
    ...(await linesOf(host, 'ip', 'route', 'show', 'proto', '87')).map((line) => `route ${line}`),
    ...tables.filter((line) => line.endsWith(' weft')),
    ...(await linesOf(host, 'sh', '-c', find)).map((path) => `file ${path}`)
  ]
}
