// kubectl weft migrate in a real cluster with flannel's DaemonSet: a fault at the first node stops it, and it goes on from
// there and back, while the pods of before keep running.
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { missingPeer } from '../lab/peers.ts'
import type { Pod } from './api.ts'
import { KubeCluster } from './cluster.ts'
import { flannelArchive, flannelPods, installFlannel, templateOf } from './flannel-set.ts'
import { deployFolder, weftArchive, weftLabels } from './install.ts'
import { noCluster, part } from './parts.ts'
import { reachEachOther, webDeployment } from './workload.ts'

const main = new URL('../../daemon/ctl/main.ts', import.meta.url).pathname
const list = '/etc/cni/net.d/10-flannel.conflist'
const skip = noCluster() || missingPeer('bin/flanneld')

describe('a cluster with flannel’s DaemonSet', { skip, timeout: 900_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: KubeCluster
  let folder: string
  let old: readonly Pod[] = []

  before(
    async () => {
      folder = up.adopt(mkdtempSync(join(tmpdir(), 'weft-migrate-')), (path) => rmSync(path, { recursive: true }))
      symlinkSync(part('kubectl'), join(folder, 'kubectl'))
      cluster = up.use(await KubeCluster.start({ images: [weftArchive(), await flannelArchive(folder)] }))
      await installFlannel(cluster)
      await cluster.plane.apply(webDeployment('old', 2))
      old = await cluster.pods('app=old', 2)
      await reachEachOther(cluster, old)
    },
    { timeout: 600_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  async function migrate(...words: readonly string[]) {
    const kubeconfig = await cluster.plane.kubeconfig('admin', 'kubernetes-admin', ['system:masters'])
    // The name by which kubectl calls it.
    const script = `process.argv.splice(1, 0, 'kubectl-weft'); await import(${JSON.stringify(main)})`
    const env = { KUBECONFIG: kubeconfig, PATH: `${folder}:${process.env.PATH}`, HOME: folder }
    const all = ['--input-type=module', '--eval', script, '--', 'migrate', ...words, `--manifests=${deployFolder}`]
    return cluster.plane.host.exec(process.execPath, all, { env, check: false, timeoutMs: 400_000 })
  }
  const weftNodes = async () =>
    (await cluster.plane.api.pods('weft', weftLabels)).map(({ spec }) => String(spec.nodeName)).sort()
  const uids = async () => (await cluster.pods('app=old', 2)).map(({ metadata }) => metadata.uid)

  test('plan names the nodes, changes nothing; apply stops at a node that does not reach others', async () => {
    const plan = await migrate('plan')
    assert.equal(plan.code, 0, `${plan.stdout}${plan.stderr}`)
    assert.match(plan.stdout, /nodes with flannel: h1, h2\n[\s\S]*lost: none/)
    assert.deepEqual(await weftNodes(), [])

    const before = { uids: await uids(), pod: (await flannelPods(cluster)).get('h2')?.metadata.name }
    const { host } = cluster.node('h1')
    const rules = [
      'add table ip broken',
      'add chain ip broken out { type filter hook output priority 0; }',
      // Neither through the tunnel nor by a plain route; kubelet still reaches the pods of this node.
      'add rule ip broken out oifname { "eth0", "flannel.1" } ip daddr 10.244.0.0/16 drop'
    ]
    await host.exec('nft', ['-f', '-'], { input: `${rules.join('\n')}\n` })
    const { code, stdout, stderr } = await migrate('apply', '--wait=20')
    assert.equal(code, 1, `${stdout}${stderr}`)
    assert.match(stdout, /stopped: node h1: after 20 s weftd does not reach h2/)
    assert.deepEqual(await weftNodes(), ['h1'])
    assert.equal((await flannelPods(cluster)).get('h2')?.metadata.name, before.pod, 'not restarted')
    assert.equal(existsSync(host.path(list)), true)
    await host.sh('nft delete table ip broken')
    assert.deepEqual(await uids(), before.uids)
  })

  test('apply goes on from there; old pods keep running, new ones reach them', async () => {
    const { code, stdout, stderr } = await migrate('apply')
    assert.equal(code, 0, `${stdout}${stderr}`)
    assert.deepEqual(await weftNodes(), ['h1', 'h2'])
    assert.equal((await flannelPods(cluster)).size, 0)
    for (const { host } of cluster.nodes) {
      assert.equal(existsSync(host.path(list)), false)
      assert.doesNotMatch((await host.exec('iptables-save')).stdout, /FLANNEL/)
    }
    await cluster.plane.apply(webDeployment('young', 2))
    assert.deepEqual(
      (await cluster.pods('app=old', 2)).map(({ metadata }) => metadata.uid),
      old.map(({ metadata }) => metadata.uid)
    )
    await reachEachOther(cluster, [...old, ...(await cluster.pods('app=young', 2))])
  })

  test('rollback restores flannel, its list and the reference plugins, and pods of either side go on', async () => {
    const { code, stdout, stderr } = await migrate('rollback')
    assert.equal(code, 0, `${stdout}${stderr}`)
    assert.deepEqual(await weftNodes(), [])
    assert.deepEqual([...(await flannelPods(cluster)).keys()].sort(), ['h1', 'h2'])
    assert.doesNotMatch(await templateOf(cluster), /weft-migrate/)
    for (const { host } of cluster.nodes) {
      assert.equal(existsSync(host.path(list)), true)
      assert.equal(existsSync(host.path('/opt/cni/bin/weft')), false)
      assert.doesNotMatch((await host.exec('nft', ['list', 'ruleset'])).stdout, /tunnel_input/)
    }
    await cluster.plane.apply(webDeployment('last', 2))
    const pods = [...old, ...(await cluster.pods('app=young', 2)), ...(await cluster.pods('app=last', 2))]
    await reachEachOther(cluster, pods)
    await cluster.plane.kubectl(['delete', 'deployment', 'young', 'old', '--wait', '--timeout=60s'])
  })
})
