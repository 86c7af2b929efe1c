// The reason reaches the user: a pod that can't be set up on a real node shows one sentence to whoever asks, in
// `kubectl describe pod` above all.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { BIN } from '../lab/cluster.ts'
import { cni } from '../lab/cni.ts'
import { until } from '../lab/run.ts'
import { Weftd } from '../lab/weftd.ts'
import type { KubeObject } from './api.ts'
import { KubeCluster } from './cluster.ts'
import { described } from './install.ts'
import type { KubeNode } from './kube-node.ts'
import { noCluster } from './parts.ts'
import { weftdRole } from './store-scene.ts'
import { webContainer } from './workload.ts'

const slow = { deadlineMs: 120_000, everyMs: 500 }
const weftctlMain = new URL('../../daemon/ctl/main.ts', import.meta.url).pathname
const podOn = (name: string, node: KubeNode) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default' },
  spec: { nodeName: node.name, terminationGracePeriodSeconds: 0, containers: [webContainer()] }
})

describe('why a pod has no network', { skip: noCluster(), timeout: 900_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: KubeCluster
  let node: KubeNode
  let weftd: Weftd

  /** The daemon of the node, with this network; an earlier one has ended. */
  async function start(network: string, wait: boolean): Promise<Weftd> {
    writeFileSync(
      node.host.path('/run/net-conf.json'),
      JSON.stringify({ Network: network, Backend: { Type: 'vxlan' } })
    )
    const kubeconfig = await cluster.plane.kubeconfig('weftd', 'weftd')
    const files = [
      `--kubeconfig-file=${kubeconfig}`,
      '--net-config-path=/run/net-conf.json',
      '--cni-conf-dir=/etc/cni/net.d'
    ]
    return Weftd.start(node.host, {
      args: ['--kube-subnet-mgr', ...files],
      env: { NODE_NAME: node.name },
      wait,
      deadlineMs: 120_000
    })
  }

  async function weftctl(...words: readonly string[]): Promise<string> {
    const { stdout, stderr } = await node.host.exec(process.execPath, [weftctlMain, ...words], { check: false })
    return stdout + stderr
  }

  before(
    async () => {
      cluster = up.use(await KubeCluster.start({ nodes: [{ proxy: false }] }))
      node = cluster.node(1)
      await cluster.plane.apply(...weftdRole('weftd'))
      await node.host.sh(`cp ${BIN}/* /opt/cni/bin/`)
      weftd = await start('10.244.0.0/16', true)
      await node.ready()
    },
    { timeout: 400_000 }
  )
  after(
    async () => {
      await weftd?.stop()
      await up.disposeAsync()
    },
    { timeout: 120_000 }
  )

  test("a condition is the same sentence in describe pod, the node's event, STATUS, /readyz and weftctl; with its end the pod comes up", async (t) => {
    await weftd.stop()
    weftd = await start('10.99.0.0/16', false)
    const sentence = await until(
      async () => {
        const { body } = await node.host.http(8471, '/readyz')
        const [, said] = /^POD_CIDR_OUTSIDE: (.*)\n$/.exec(body) ?? []
        if (said === undefined) throw new Error(body)
        return said
      },
      { what: '/readyz to name the podCIDR', ...slow }
    )
    assert.match(sentence, /10\.244\.\d+\.0\/24.*10\.99\.0\.0\/16.*\. Cure: /)

    await cluster.plane.apply(podOn('web', node))
    const description = await described(cluster, 'web', /FailedCreatePodSandBox/)
    assert.ok(description.includes(`plugin type="weft" failed (add): ${sentence}`), description)
    t.diagnostic(description.slice(description.indexOf('Events:')))

    const status = await cni(node.host, {
      ...{ verb: 'STATUS', config: { cniVersion: '1.1.0', name: 'cbr0', type: 'weft' }, binDir: BIN, check: false }
    })
    assert.deepEqual([status.error?.code, status.error?.msg], [50, sentence])
    assert.ok((await weftctl('status')).includes(sentence))
    const why = await weftctl('why', 'pod', 'default/web')
    assert.match(why, /^default\/web: could not be set up\n\nADD of eth0 by weft failed at .* \(CNI error 11\):\n/)
    assert.ok(why.includes(`  ${sentence}\n`), why)
    type Event = KubeObject & { readonly reason: string; readonly message: string }
    const events = () => cluster.plane.api.list<Event>('/api/v1/namespaces/default/events')
    await until(async () => (await events()).some(({ message }) => message === sentence), {
      what: `the node's event ${sentence}`,
      ...slow
    })

    await weftd.stop()
    weftd = await start('10.244.0.0/16', true)
    await until(
      async () => (await cluster.plane.api.pods('default')).every(({ status: { phase } }) => phase === 'Running'),
      {
        what: 'the pod to run',
        ...slow
      }
    )
    assert.match(await weftctl('why', 'pod', 'default/web'), /^default\/web: is set up\n/)
  })

  test('without weftd the executable says so itself, with what to look at', async () => {
    await weftd.stop()
    await cluster.plane.apply(podOn('late', node))
    const description = await described(cluster, 'late', /FailedCreatePodSandBox/)
    // containerd runs both at the same time and tells of the one that failed first.
    assert.match(
      description,
      /plugin type="(weft|loopback)" failed \(add\): weftd is not running on this node: .*systemctl status weftd/
    )
  })
})
