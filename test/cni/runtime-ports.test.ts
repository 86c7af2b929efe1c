// Host ports and rates that containerd and podman ask for, of our one plugin and of Debian's chained after it, each in
// its own spelling of the keys (HostPort, IngressRate; hostPort).
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { BIN, Cluster } from '../lab/cluster.ts'
import { debianPlugins, pluginFolder } from '../lab/cnitool.ts'
import { Containerd } from '../lab/containerd.ts'
import type { Host } from '../lab/host.ts'
import { Podman } from '../lab/podman.ts'
import { until } from '../lab/run.ts'
import { podTraces } from '../lab/traces.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const serve = ['/bin/httpd', '-f', '-p', '80', '-h', '/www']
/** busybox has no server for udp. */
const echo = `const socket = require('node:dgram').createSocket('udp4')
socket.on('message', (text, { port, address }) => socket.send(text, port, address)).bind(83)`
const page = 'served from the pod\n'

const chained = {
  portmap: { type: 'portmap', capabilities: { portMappings: true } },
  bandwidth: { type: 'bandwidth', capabilities: { bandwidth: true } }
}
const alone = { type: 'weft', capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true } }
const sets = [
  { about: 'of our one plugin', plugins: [alone], from: {}, needs: [] },
  {
    about: 'of our plugins in a chain',
    plugins: [{ type: 'weft' }, chained.portmap, chained.bandwidth],
    from: { portmap: BIN, bandwidth: BIN },
    needs: ['portmap', 'bandwidth']
  },
  {
    about: "of Debian's plugins after ours",
    plugins: [{ type: 'weft', hairpinMode: true }, chained.portmap, chained.bandwidth],
    from: { portmap: debianPlugins, bandwidth: debianPlugins },
    needs: []
  }
]

for (const { about, plugins, from, needs } of sets) {
  const missing = needs.filter((type) => !pluginTypes.includes(type))
  const notYet = missing.length > 0 && `${missing.join(', ')} is no plugin of ours yet`
  describe(`host ports and rates ${about}`, { skip: skip || notYet, timeout: 600_000 }, () => {
    const up = new AsyncDisposableStack()
    let here: Containerd
    let podman: Podman
    let there: Host

    before(
      async () => {
        const cluster = up.use(await Cluster.start({ hosts: [2] }))
        const binDir = pluginFolder(cluster.node(1), { weft: BIN, loopback: BIN, ...from })
        here = up.use(
          await Containerd.start(cluster.node(1), { list: { cniVersion: '1.0.0', name: 'lab', plugins }, binDir })
        )
        podman = up.use(
          await Podman.start(cluster.node(1), {
            list: { cniVersion: '0.4.0', name: 'lab', plugins },
            pluginDirs: [binDir]
          })
        )
        there = cluster.node(2)
      },
      { timeout: 240_000 }
    )
    after(() => up.disposeAsync(), { timeout: 120_000 })

    /** Tells a story, after which the host must have no more of pods on it than before. */
    async function leavingNothing(story: () => Promise<void>): Promise<void> {
      const earlier = await podTraces(here.host)
      await story()
      assert.deepEqual(await podTraces(here.host), earlier)
    }

    const get = (from: Host, address: string) =>
      from.exec('wget', ['-q', '-O', '-', '-T', '3', '-t', '1', `http://${address}/index.html`], { check: false })

    test('of containerd reach a pod from another host, from the node and from the pod itself, until the pod is stopped', () =>
      leavingNothing(async () => {
        const { address } = here.host
        const pod = await here.pod(
          {
            portMappings: [
              { containerPort: 80, hostPort: 8080, protocol: 'tcp' },
              { containerPort: 80, hostPort: 8081, protocol: 'tcp', hostIp: address },
              // A port that is only declared: containerd must not ask for it, nor we open it.
              { containerPort: 81, hostPort: 0, protocol: 'tcp' }
            ]
          },
          serve
        )
        for (const [from, to] of [
          [there, `${address}:8080`],
          [there, `${address}:8081`],
          [here.host, `${address}:8080`],
          [here.host, '127.0.0.1:8080']
        ] as const) {
          const answered = async () => (await get(from, to)).stdout === page
          await until(answered, { what: `${to} to answer on ${from.name}`, deadlineMs: 15_000 })
        }
        // busybox's wget needs a libc that Debian's static build has not.
        const request = `printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${address} 8080`
        const itself = await here.cri.exec(pod.container, ['sh', '-c', request])
        assert.ok(itself.stdout.endsWith(page), `${itself.exitCode} ${itself.stdout}${itself.stderr}`)
        assert.notEqual((await get(here.host, '127.0.0.1:8081')).code, 0, 'the host IP is not 127.0.0.1')
        await here.cri.stopPodSandbox(pod.id)
        assert.notEqual((await get(there, `${address}:8080`)).code, 0)
      }))

    test('in annotations of containerd limit the pod', () =>
      leavingNothing(async () => {
        const pod = await here.pod({
          annotations: { 'kubernetes.io/ingress-bandwidth': '8M', 'kubernetes.io/egress-bandwidth': '16M' }
        })
        const { stdout } = await here.host.exec('tc', ['qdisc', 'show'])
        assert.match(stdout, /qdisc tbf .* rate 8Mbit /)
        assert.match(stdout, /qdisc tbf .* rate 16Mbit /)
        await here.cri.stopPodSandbox(pod.id)
        assert.doesNotMatch((await here.host.exec('tc', ['qdisc', 'show'])).stdout, /tbf/)
      }))

    test('of podman reach a container over TCP and UDP; a port in use is refused, and is free after the container ends', () =>
      leavingNothing(async () => {
        const { address } = podman.host
        await podman.run('web', ['--publish=8082:80', '--publish=8083:83/udp'], serve)
        const { stdout: netns } = await podman.podman(['inspect', '--format', '{{.NetworkSettings.SandboxKey}}', 'web'])
        await using _echo = podman.host.spawn('nsenter', [`--net=${netns.trim()}`, process.execPath, '-e', echo], {
          name: 'echo'
        })
        const answered = async () => (await get(there, `${address}:8082`)).stdout === page
        await until(answered, { what: 'the tcp port to answer', deadlineMs: 15_000 })
        const script = `exec 3<>/dev/udp/${address}/8083; echo hello >&3; timeout 1 head -n 1 <&3`
        const echoed = async () =>
          (await there.exec('bash', ['--norc', '-c', script], { check: false })).stdout === 'hello\n'
        await until(echoed, { what: 'the udp port to answer', deadlineMs: 15_000 })
        await assert.rejects(podman.run('second', ['--publish=8082:80'], serve), /8082/)
        await podman.remove('second')
        await podman.remove('web')
        await podman.run('third', ['--publish=8082:80'], serve)
        await until(answered, { what: 'the next container to have the port', deadlineMs: 15_000 })
        await podman.remove('third')
      }))
  })
}
