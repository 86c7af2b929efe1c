// containerd and runc with our executables and nobody else's: pods through CRI, as kubelet makes them, on two hosts.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Cluster } from '../lab/cluster.ts'
import { Containerd, type CriPod, weftList, writeList } from '../lab/containerd.ts'
import { until } from '../lab/run.ts'
import { podTraces } from '../lab/traces.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

describe('containerd', { skip, timeout: 600_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: Cluster
  let here: Containerd
  let there: Containerd

  before(
    async () => {
      cluster = up.use(await Cluster.start({ hosts: [2] }))
      here = up.use(await Containerd.start(cluster.node(1)))
      there = up.use(await Containerd.start(cluster.node(2)))
    },
    { timeout: 240_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  /** Tells a story, after which both hosts must have no more of pods on them than before. */
  async function leavingNothing(story: () => Promise<void>): Promise<void> {
    const traces = () => Promise.all([here, there].map(({ host }) => podTraces(host)))
    const earlier = await traces()
    await story()
    assert.deepEqual(await traces(), earlier)
  }

  async function reaches(runtime: Containerd, pod: CriPod, address: string): Promise<void> {
    const ping = await runtime.cri.exec(pod.container, ['ping', '-c', '1', '-W', '5', address])
    assert.equal(ping.exitCode, 0, `${pod.ip} → ${address}: ${ping.stdout}${ping.stderr}`)
  }

  test('connects pods across hosts; StopPodSandbox removes everything', () =>
    leavingNothing(async () => {
      const [first, second] = [await here.pod(), await there.pod()]
      await reaches(here, first, second.ip)
      await reaches(there, second, first.ip)
      await here.cri.stopPodSandbox(first.id)
      await there.cri.stopPodSandbox(second.id)
    }))

  test("reports the pod's actual address, MAC and interfaces; the address is the reserved one", () =>
    leavingNothing(async () => {
      const pod = await here.pod()
      const { stdout } = await here.cri.exec(pod.container, ['ip', 'addr', 'show', 'eth0'])
      assert.match(stdout, new RegExp(`inet ${pod.ip.replaceAll('.', '\\.')}/\\d+ `))
      const { Interfaces } = pod.details.cniResult as {
        readonly Interfaces: Readonly<Record<string, { readonly Mac: string; readonly Sandbox: string } | undefined>>
      }
      assert.match(stdout, new RegExp(`link/ether ${Interfaces.eth0?.Mac} `))
      assert.match(String(Interfaces.eth0?.Sandbox), /^\/var\/run\/netns\/cni-/)
      const { stdout: reservation } = await here.host.exec('cat', [`/var/lib/cni/networks/lab/${pod.ip}`])
      assert.equal(reservation, `${pod.id}\r\neth0`)
      await here.cri.stopPodSandbox(pod.id)
    }))

  test('runs loopback and weft in parallel for twelve pods at once: lo is up, addresses are unique', () =>
    leavingNothing(async () => {
      const pods = await Promise.all(Array.from({ length: 12 }, () => here.pod()))
      assert.equal(new Set(pods.map(({ ip }) => ip)).size, pods.length)
      for (const pod of pods) {
        const { stdout } = await here.cri.exec(pod.container, ['ip', 'addr', 'show', 'lo'])
        assert.match(stdout, /<LOOPBACK,UP,LOWER_UP>[\s\S]*inet 127\.0\.0\.1\/8/)
      }
      await Promise.all(pods.map(({ id }) => here.cri.stopPodSandbox(id)))
    }))

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    test(`keeps pods when it is restarted by ${signal}, and stops them afterwards`, () =>
      leavingNothing(async () => {
        const [first, second] = [await here.pod(), await there.pod()]
        await here.restart(signal)
        await reaches(here, first, second.ip)
        await here.cri.stopPodSandbox(first.id)
        await there.cri.stopPodSandbox(second.id)
      }))
  }

  test('stops a pod twice after its namespace was deleted, and frees the address', () =>
    leavingNothing(async () => {
      const pod = await here.pod()
      const { Interfaces } = pod.details.cniResult as {
        readonly Interfaces: { readonly eth0: { readonly Sandbox: string } }
      }
      const netns = Interfaces.eth0.Sandbox
      await here.host.sh(`umount ${netns} && rm ${netns}`)
      for (let times = 0; times < 2; times++) await here.cri.stopPodSandbox(pod.id)
      await here.cri.removePodSandbox(pod.id)
    }))

  test("passes on the plugin's error and cure while weftd is down; the next attempt after its restart succeeds", () =>
    leavingNothing(async () => {
      const daemon = cluster.daemon(1)
      const earlier = await here.cri.podSandboxes()
      await daemon.stop()
      await assert.rejects(here.cri.runPodSandbox({ name: 'down' }), (error: Error) => {
        assert.match(error.message, /weftd is not running on this node: there is no socket \/run\/weft\/weftd\.sock/)
        assert.match(error.message, /systemctl status weftd/)
        return true
      })
      await daemon.restart()
      const pod = await here.pod()
      await reaches(here, pod, cluster.node(2).address)
      // kubelet stops what a failed try left, too.
      for (const id of await here.cri.podSandboxes()) if (!earlier.includes(id)) await here.cri.stopPodSandbox(id)
    }))

  test('keeps a pod whose DEL failed because weftd was down, and stops it at the next StopPodSandbox', () =>
    leavingNothing(async () => {
      const [pod, daemon] = [await here.pod(), cluster.daemon(1)]
      await daemon.kill('SIGKILL')
      await assert.rejects(here.cri.stopPodSandbox(pod.id), /weftd is not running on this node/)
      await daemon.restart()
      await here.cri.stopPodSandbox(pod.id)
    }))

  for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0']) {
    test(`accepts a list of version ${cniVersion}`, () =>
      leavingNothing(async () => {
        await writeList(here.host, { ...weftList, cniVersion })
        await loaded(here, cniVersion)
        const pod = await here.pod()
        await reaches(here, pod, cluster.node(2).address)
        await here.cri.stopPodSandbox(pod.id)
      }))
  }

  test('reports the network as not ready until there is a list', async () => {
    const ready = async () => (await here.cri.status()).conditions.find(({ type }) => type === 'NetworkReady')
    await here.host.sh('rm /etc/cni/net.d/10-weft.conflist')
    await until(async () => (await ready())?.status === false, { what: 'NetworkReady to be false' })
    await writeList(here.host, weftList)
    await until(async () => (await ready())?.status === true, { what: 'NetworkReady to be true' })
  })
})

/** Waits until containerd has read the list of this version. */
async function loaded(runtime: Containerd, cniVersion: string): Promise<void> {
  const inUse = async () => {
    const { network } = await runtime.cri.status()
    const networks = network.Networks as readonly {
      readonly Config: { readonly Name: string; readonly CNIVersion: string }
    }[]
    return networks?.some(({ Config }) => Config.Name === weftList.name && Config.CNIVersion === cniVersion)
  }
  await until(inUse, { what: `containerd to read the list of version ${cniVersion}`, deadlineMs: 15_000 })
}
