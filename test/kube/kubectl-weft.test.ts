// kubectl's plugin from a machine that is no node: it finds the weft pod of a node, or of the node that a pod is on,
// and has its weftd asked.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { Asked } from '../../daemon/ctl/page/facts.ts'
import { viewOf } from '../../daemon/ctl/page/view.ts'
import { KubeCluster } from './cluster.ts'
import { installWeft, weftArchive } from './install.ts'
import { noCluster, part } from './parts.ts'
import { webDeployment } from './workload.ts'

const main = new URL('../../daemon/ctl/main.ts', import.meta.url).pathname

describe('kubectl weft', { skip: noCluster(), timeout: 900_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: KubeCluster
  let folder: string

  before(
    async () => {
      folder = up.adopt(mkdtempSync(join(tmpdir(), 'weft-plugin-')), (path) => rmSync(path, { recursive: true }))
      symlinkSync(part('kubectl'), join(folder, 'kubectl'))
      cluster = up.use(await KubeCluster.start({ images: [weftArchive()] }))
      await installWeft(cluster)
    },
    { timeout: 600_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  /** On the machine of the control plane, as root's kubectl has it there. */
  async function plugin(...words: readonly string[]) {
    const kubeconfig = await cluster.plane.kubeconfig('admin', 'kubernetes-admin', ['system:masters'])
    // The name by which kubectl calls it.
    const script = `process.argv.splice(1, 0, 'kubectl-weft'); await import(${JSON.stringify(main)})`
    const env = { KUBECONFIG: kubeconfig, PATH: `${folder}:${process.env.PATH}`, HOME: folder }
    const { host } = cluster.plane
    return host.exec(process.execPath, ['--input-type=module', '--eval', script, '--', ...words], {
      env,
      check: false,
      timeoutMs: 120_000
    })
  }

  test('--node asks the weftd of any node', async () => {
    for (const { name } of cluster.nodes) {
      const { stdout, stderr, code } = await plugin('status', `--node=${name}`)
      assert.match(stdout, new RegExp(`^${name}: ready \\(weftd `), stderr)
      assert.equal(code, 0)
    }
    const { stdout } = await plugin('nodes', '--node=h1')
    for (const { name } of cluster.nodes) assert.match(stdout, new RegExp(`^${name} +10\\.244\\.`, 'm'))
  })

  test('why pod finds the node that the pod is on, by its name alone', async () => {
    await cluster.plane.apply(webDeployment('web', 2))
    for (const { metadata, status } of await cluster.pods('app=web', 2)) {
      const { stdout, stderr, code } = await plugin('why', 'pod', `default/${metadata.name}`)
      assert.match(
        stdout,
        new RegExp(`^default/${metadata.name}: is set up\\n[^]* addresses +${status.podIP}\\n`),
        stderr
      )
      assert.equal(code, 0)
    }
  })

  test('page asks the weftd of every node', async () => {
    const { stdout, stderr } = await plugin('page', '--json')
    const asked = JSON.parse(stdout || '[]') as readonly Asked[]
    assert.deepEqual(
      asked.map(({ name, facts }) => [name, facts?.status?.node, facts?.nodes?.leases.length]).sort(),
      cluster.nodes.map(({ name }) => [name, name, cluster.nodes.length]).sort(),
      stderr
    )
    const { nodes } = viewOf(asked, new Date().toISOString(), true)
    assert.deepEqual(nodes.rows.map(({ name }) => name).sort(), cluster.nodes.map(({ name }) => name).sort())
    for (const { subnet, backend, mtu, pods } of nodes.rows)
      assert.match(
        [subnet, backend, mtu, pods].join(' '),
        /^10\.244\.\d+\.0\/24 vxlan pods 1450, eth0 1500 \d+, 2\d\d addresses free$/
      )
  })

  test('why from pod to pod follows the path and the path back, and check every path between the nodes', async () => {
    await cluster.plane.apply(webDeployment('web', 2))
    const pods = await cluster.pods('app=web', 2)
    const [from] = pods
    const to = pods.find(({ spec }) => spec.nodeName !== from?.spec.nodeName)
    assert.ok(from && to, 'pods on two nodes')
    const words = ['why', 'pod', `default/${from.metadata.name}`, 'to', 'pod', `default/${to.metadata.name}`]
    const { stdout, stderr, code } = await plugin(...words)
    const back = `path from pod default/${to.metadata.name} `
    assert.match(
      stdout,
      new RegExp(`^path from pod \\S+ \\S+ to node ${to.spec.nodeName} [^]*\nwhole: [^]*\n${back}[^]*\nwhole: .*\n$`),
      stderr
    )
    assert.equal(code, 0, stdout)
    const matrix = await plugin('check')
    assert.match(matrix.stdout, /^tried from (\d+) nodes, each to the others \(\1 of \1\)\n/, matrix.stderr)
    assert.doesNotMatch(matrix.stdout, /\?|firewall|answer/)
    assert.equal(matrix.code, 0, matrix.stdout)
    const { nodes } = JSON.parse((await plugin('check', '--json')).stdout)
    const views = await plugin('peers')
    assert.equal(
      views.stdout.match(new RegExp(`^\\S+ +${nodes} +${nodes} +0 +0$`, 'gm'))?.length,
      nodes + 1,
      views.stdout
    )
    assert.equal(views.code, 0, views.stderr)
  })

  test('a node or a pod that is not there is reported with a cure', async () => {
    const { code, stderr } = await plugin('status', '--node=none')
    assert.match(stderr, /node "none" has no running pod .*\ncure: /)
    assert.equal(code, 3)
    assert.match((await plugin('why', 'pod', 'default/none')).stderr, /NotFound.*\ncure: /)
  })
})
