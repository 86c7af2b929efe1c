// The DaemonSet's pod in real containers: it works with what the manifest gives it, and each capability is one without
// which something fails.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import type { Container, PodSpec } from 'kubernetes-types/core/v1.js'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { Cluster } from './cluster.ts'
import { Containerd } from './containerd.ts'
import { DaemonPod, daemonPodSpec, filesIn, type RunningContainer, weftImage } from './daemon-pod.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'
import { sample } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const CONFLIST = '/etc/cni/net.d/10-weft.conflist'
const patient = { deadlineMs: 60_000, everyMs: 100 }

/**
 * What a machine with systemd has and a host of the lab has not: shared mounts, and a directory of its own for plugins.
 */
const MACHINE = 'mount --make-rshared /; mkdir -p /opt/cni; mount -t tmpfs tmpfs /opt/cni; mkdir /opt/cni/bin'

const first = (containers: readonly Container[] | undefined): Container =>
  containers?.[0] ?? assert.fail('no such container')
const addedTo = (container: Container) => container.securityContext?.capabilities?.add ?? []

/** The manifest's pod without one of the capabilities. */
function without(capability: string): PodSpec {
  const spec = daemonPodSpec()
  for (const container of [...(spec.initContainers ?? []), ...spec.containers]) {
    const { capabilities } = container.securityContext ?? {}
    if (capabilities) capabilities.add = addedTo(container).filter((name) => name !== capability)
  }
  return spec
}

describe('the pod of the DaemonSet', { skip, timeout: 900_000 }, () => {
  const up = new AsyncDisposableStack()
  let host: Host
  let runtime: Containerd
  let storeArgs: readonly string[]
  let pods = 0

  before(
    async () => {
      const cluster = up.use(await Cluster.start({ hosts: [1], start: false }))
      storeArgs = [`--etcd-endpoints=${cluster.etcd.endpointList}`]
      host = cluster.node(1)
      await host.sh(MACHINE)
      runtime = up.use(await Containerd.start(host, { list: null, binDir: '/opt/cni/bin', snapshotter: 'overlayfs' }))
      await runtime.importImages(await weftImage())
    },
    { timeout: 600_000 }
  )
  after(() => up.disposeAsync(), { timeout: 300_000 })

  async function daemonPod(spec = daemonPodSpec()): Promise<DaemonPod> {
    const pod = new DaemonPod(runtime, `weft-${pods++}`, { spec, storeArgs })
    await pod.make()
    return pod
  }

  /**
   * weftd of such a pod, up to `seen`; what it has made is gone afterwards, so that the next begins on a fresh node.
   */
  async function running(spec: PodSpec, seen: (weftd: RunningContainer) => Promise<void>): Promise<void> {
    await using pod = await daemonPod(spec)
    const { exit, log } = await pod.install()
    assert.equal(exit, 0, log)
    const weftd = await pod.start()
    try {
      await seen(weftd)
    } catch (error) {
      throw new Error(`${error instanceof Error ? error.message : error}\n${weftd.log().slice(-6000)}`, {
        cause: error
      })
    } finally {
      await weftd.stop()
      await host.sh(
        `rm -f ${CONFLIST}; nft delete table inet weft; ip link del weft.1; iptables-legacy -F FORWARD || true`,
        {
          check: false
        }
      )
    }
  }

  const readyz = async () => (await host.http(8471, '/readyz')).status
  const ready = () => until(async () => (await readyz()) === 200, { what: 'weftd to be ready', ...patient })
  const conflist = () => existsSync(host.path(CONFLIST))
  const accepts = async () =>
    (await host.exec('iptables-legacy-save', ['-t', 'filter'])).stdout.match(/-j ACCEPT/g) ?? []

  test('works as the manifest has it: plugins, configuration list, pods, accepts, and an end that leaves no gap', (t) =>
    running(daemonPodSpec(), async (weftd) => {
      assert.deepEqual(filesIn(host.path('/opt/cni/bin')), [...pluginTypes].sort())
      await until(conflist, { what: 'the configuration list', ...patient })
      await ready()
      const [here, there] = [await runtime.pod(), await runtime.pod()]
      const ping = await runtime.cri.exec(here.container, ['ping', '-c', '1', '-W', '5', there.ip])
      assert.equal(ping.exitCode, 0, ping.stdout)
      assert.equal((await host.exec('cat', ['/proc/sys/net/ipv4/ip_forward'])).stdout.trim(), '1')

      await host.exec('iptables-legacy', ['-P', 'FORWARD', 'DROP'])
      await until(async () => (await accepts()).length > 0, { what: 'an accept in the legacy chain', ...patient })

      const status = await runtime.cri.exec(weftd.id, ['weftctl', 'status'])
      assert.match(status.stdout, /10\.244\./, status.stderr)
      const shell = await runtime.cri.exec(weftd.id, ['sh', '-c', 'true']).catch(String)
      assert.match(String(shell), /executable file not found/)

      const metrics = (await host.http(8471, '/metrics')).body
      const resident = sample(metrics, 'weft_process_resident_memory_bytes') ?? 0
      const anonymous = sample(metrics, 'weft_process_anonymous_memory_bytes') ?? 0
      t.diagnostic(`${(resident / (1 << 20)).toFixed(0)} MiB resident, ${(anonymous / (1 << 20)).toFixed(0)} anonymous`)
      assert.ok(resident > 0 && resident < 128 << 20, `${resident >> 20} MiB resident; requested are 64`)

      await weftd.stop()
      assert.equal(await weftd.exitCode(), 0, weftd.log().slice(-3000))
      assert.ok(conflist(), 'the list went with the pod')
      assert.equal((await runtime.cri.exec(here.container, ['ping', '-c', '1', '-W', '5', there.ip])).exitCode, 0)
      await using successor = await daemonPod()
      assert.match((await successor.install()).log, /weft: already the same/)
      const next = await successor.start()
      await ready()
      for (const { id } of [here, there]) await runtime.cri.stopPodSandbox(id)
      await next.stop()
    }))

  const proofs: Readonly<Record<string, () => Promise<void>>> = {
    async NET_ADMIN() {
      await running(without('NET_ADMIN'), async (weftd) => {
        await until(() => /not permitted|EPERM/.test(weftd.log()), { what: 'a refusal in the log', ...patient })
        assert.equal(conflist(), false)
      })
    },
    async NET_RAW() {
      await host.exec('iptables-legacy', ['-P', 'FORWARD', 'DROP'])
      await running(without('NET_RAW'), async (weftd) => {
        await ready()
        await until(() => /iptables-legacy.*(Permission denied|not permitted)/.test(weftd.log()), {
          what: 'a refusal in the log',
          ...patient
        })
        assert.deepEqual(await accepts(), [])
      })
      await host.exec('iptables-legacy', ['-P', 'FORWARD', 'ACCEPT'])
    },
    async SYS_ADMIN() {
      await running(without('SYS_ADMIN'), async (weftd) => {
        await until(() => /EPERM|not permitted|CAP_SYS_ADMIN/.test(weftd.log()), {
          what: 'a refusal in the log',
          ...patient
        })
        await assert.rejects(runtime.pod())
      })
    },
    async DAC_OVERRIDE() {
      await host.sh('rm -f /opt/cni/bin/*; chown 1001:127 /opt/cni/bin')
      await using refused = await daemonPod(without('DAC_OVERRIDE'))
      const { exit, log } = await refused.install()
      assert.equal(exit, 1, log)
      assert.match(log, /EACCES.*\ncure: /)
      await using allowed = await daemonPod()
      assert.equal((await allowed.install()).exit, 0)
      await host.sh('chown 0:0 /opt/cni/bin')
    }
  }

  for (const [capability, proof] of Object.entries(proofs)) test(`needs ${capability}`, proof)

  test('has no capability whose need is not proven here', () => {
    const spec = daemonPodSpec()
    const given = [...addedTo(first(spec.initContainers)), ...addedTo(first(spec.containers))]
    assert.deepEqual(given.sort(), Object.keys(proofs).sort())
  })

  test("needs the host's /proc/sys/net beside its own, which is read-only", async () => {
    const spec = daemonPodSpec()
    const container = first(spec.containers)
    container.volumeMounts = container.volumeMounts?.filter(({ name }) => name !== 'proc-sys-net') ?? []
    await host.sh('echo 0 > /proc/sys/net/ipv4/ip_forward')
    await running(spec, async (weftd) => {
      await until(() => /ip_forward.*(EROFS|read-only)/i.test(weftd.log()), {
        what: 'a refusal in the log',
        ...patient
      })
    })
  })

  test('needs mounts that come from the host later: namespaces of pods that start after it', async () => {
    const spec = daemonPodSpec()
    for (const mount of first(spec.containers).volumeMounts ?? []) delete mount.mountPropagation
    await running(spec, async () => {
      await ready()
      await assert.rejects(runtime.pod(), /HostToContainer|network namespace/)
    })
  })
})
