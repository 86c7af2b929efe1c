// A real dockerd, which sets the FORWARD policy to DROP, beside Weft's firewall: pods get through, and Docker goes on
// working.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Keeper } from './firewall-keeper.ts'
import { ensureOwnNamespace, Neighbour } from './firewall-scene.ts'
import { Background, run, until } from './run.ts'

ensureOwnNamespace(fileURLToPath(import.meta.url))

/** dockerd in this process's namespace, whose `iptables` is of the given kind. */
class Docker implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'weft-firewall-docker-'))
  readonly #env: Readonly<Record<string, string>>
  #program: Background | undefined

  constructor(kind: 'nft' | 'legacy') {
    const tools = join(this.directory, 'tools')
    mkdirSync(tools)
    for (const tool of ['iptables', 'ip6tables']) symlinkSync(`/usr/sbin/${tool}-${kind}`, join(tools, tool))
    this.#env = { PATH: `${tools}:${process.env.PATH}` }
  }

  /** `bip`: the subnet of docker0. */
  async start(bip = '172.30.9.1/24'): Promise<void> {
    const options = ['data-root=data', 'exec-root=exec', 'pidfile=pid'].map(
      (option) => `--${option.replace('=', `=${this.directory}/`)}`
    )
    const args = [...options, `--host=unix://${this.directory}/docker.sock`, `--bip=${bip}`, '--shutdown-timeout=2']
    this.#program = new Background('dockerd', 'dockerd', args, {
      env: this.#env,
      logPath: join(this.directory, 'log')
    })
    await until(() => this.docker('version'), { what: 'dockerd to answer', everyMs: 100 })
  }

  docker(...args: readonly string[]) {
    return run('docker', ['--host', `unix://${this.directory}/docker.sock`, ...args])
  }

  async stop(): Promise<void> {
    await this.#program?.stop(10_000)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** docker0 and another bridge stay where a dockerd ends; its rules do, too. */
const freshHost = () =>
  run('sh', ['-e'], {
    // Docker drops only where it switched forwarding on itself.
    input: `mount -t tmpfs tmpfs /run; ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward; nft flush ruleset
ip -o link show type bridge | awk -F': ' '{print $2}' | xargs -r -n 1 ip link delete`
  })

/** A namespace as a container of a bridge, without an image. */
async function container(name: string, bridge: string, address: string, gateway: string): Promise<Neighbour> {
  const neighbour = await Neighbour.join(name, [])
  await run('ip', ['link', 'set', name, 'master', bridge])
  await neighbour.exec('ip', ['address', 'add', address, 'dev', 'eth0'])
  await neighbour.exec('ip', ['route', 'add', 'default', 'via', gateway])
  return neighbour
}

test('Docker keeps its networks apart where docker0 has the pod subnet, and pods reach its containers', async () => {
  await freshHost()
  using pod = await Neighbour.join('pod-a', [{ here: '10.244.1.1/25', there: '10.244.1.2/25' }])
  await using docker = new Docker('nft')
  await docker.start('10.244.9.1/24')
  const bridge = ['--opt', 'com.docker.network.bridge.name=br-another', '--subnet=172.30.10.0/24']
  await docker.docker('network', 'create', ...bridge, 'another')
  using ours = await container('c-ours', 'docker0', '10.244.9.2/24', '10.244.9.1')
  using other = await container('c-other', 'br-another', '172.30.10.2/24', '172.30.10.1')
  const isApart = async () => !(await ours.reaches('172.30.10.2')) && !(await other.reaches('10.244.9.2'))
  assert.ok(await isApart(), 'Docker does not isolate')
  assert.equal(await pod.reaches('10.244.9.2'), false, 'Docker does not drop')

  await using _ = new Keeper(3600, { devices: ['docker0', 'pod-a'], adminChains: [] })
  await until(() => pod.reaches('10.244.9.2'), { what: 'a pod to reach a container' })
  assert.ok(await ours.reaches('10.244.1.2'), 'a container does not reach a pod')
  assert.ok(await isApart(), 'the isolation is gone')
  await docker.docker('network', 'rm', 'another')
})

describe('pods pass a host with Docker whose iptables is', () => {
  for (const kind of ['nft', 'legacy'] as const) {
    test(kind, async () => {
      await freshHost()
      using a = await Neighbour.join('pod-a', [{ here: '10.244.1.1/25', there: '10.244.1.2/25' }])
      using _b = await Neighbour.join('pod-b', [{ here: '10.244.1.129/25', there: '10.244.1.130/25' }])
      await using docker = new Docker(kind)
      await docker.start()
      assert.equal(await a.reaches('10.244.1.130'), false, 'Docker does not drop')

      await using keeper = new Keeper(1)
      await until(() => a.reaches('10.244.1.130'), { what: 'pods to reach each other' })
      const user = async () => (await run(`iptables-${kind}`, ['-S', 'DOCKER-USER'])).stdout
      const first = /^-N DOCKER-USER\n-A DOCKER-USER -[sd] 10\.244\.0\.0\/16 -m comment --comment weft -j ACCEPT\n/
      await until(async () => first.test(await user()), { what: 'the accept at the head of DOCKER-USER' })
      assert.match(keeper.reasons.join(), /^Docker: chain ip filter FORWARD/)

      await docker.docker('network', 'create', 'another')
      await docker.stop()
      await docker.start()
      await docker.docker('network', 'rm', 'another')
      await until(() => a.reaches('10.244.1.130'), { what: 'pods to reach each other after a restart of Docker' })
      const isWhole = (rules: string) => first.test(rules) && rules.split('weft').length - 1 === 2
      await until(async () => isWhole(await user()), { what: 'both accepts to be there, once each' })
    })
  }
})
