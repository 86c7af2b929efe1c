// What is wanted in other programs' chains as these, and the devices of this host, change; and when that is a
// condition.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AsyncQueue } from '../../../daemon/base/async-queue.ts'
import { subnetChain } from '../../../daemon/firewall/subnet-chain.ts'
import { Health } from '../../../daemon/health/health.ts'
import { savedTables } from '../../../daemon/kernel/nftables/iptables-save.ts'
import { ForeignFirewall } from '../../../daemon/node/foreign-firewall.ts'
import type { ForeignView, PodSide } from '../../../daemon/state/foreign-chain.ts'
import type { Outcome } from '../../../daemon/state/kernel.ts'
import { type KernelObject, keyOf, stateOf } from '../../../daemon/state/object.ts'
import { NFT_TABLE } from '../../../daemon/state/ownership.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { until } from '../../lab/run.ts'
import { silent } from '../logs.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const pods = prefix('10.244.0.0/16')

/** A reconciler that keeps what is wanted, and one view after the other. */
class Scene {
  observed: KernelObject[] = []
  desired: KernelObject[] = []
  wanted: readonly string[] = []
  /** How often the senders of the tunnel's guard were wanted. */
  guards = 0
  side: PodSide | undefined
  plainDevice: string | undefined
  readonly logged: unknown[] = []
  readonly health = new Health(Date.now, () => undefined)
  readonly views: AsyncQueue<ForeignView>
  readonly #end = new AbortController()
  readonly #firewall: ForeignFirewall
  readonly #following: Promise<void>
  #observe: (changed: readonly KernelObject[]) => void = () => assert.fail('nobody listens')

  constructor(refuses: (object: KernelObject) => boolean = () => false, accepts = true) {
    const scene = this
    const reconciler = {
      get observed() {
        return stateOf(scene.observed)
      },
      get desired() {
        return stateOf(scene.desired)
      },
      onObserved(listener: (changed: readonly KernelObject[]) => void) {
        scene.#observe = listener
      },
      async want(owner: string, objects: readonly KernelObject[]): Promise<readonly Outcome[]> {
        if (owner === 'tunnel senders') scene.guards++
        else scene.wanted = objects.map(keyOf)
        return objects.map((object) => ({
          change: { do: 'put' as const, object },
          ...(refuses(object) ? { error: new Error('refused') } : {})
        }))
      }
    }
    this.#firewall = new ForeignFirewall(
      { 4: pods },
      {
        ...{ reconciler, health: this.health, adminChain: 'CNI-ADMIN', accepts, plainDevice: () => this.plainDevice },
        log: { ...silent, info: (fields) => this.logged.push(fields) },
        judgeBy: (side) => {
          this.side = side
        }
      }
    )
    this.health.clear('STARTING')
    this.views = new AsyncQueue(this.#end.signal, () => undefined)
    this.#following = this.#firewall.follow(this.views)
  }

  /** The next view, an iptables-save; resolves when it is answered. */
  async see(policy: string, ...rules: readonly string[]): Promise<void> {
    const output = ['*filter', `:FORWARD ${policy} [0:0]`, ...rules, 'COMMIT'].join('\n')
    this.wanted = ['pending']
    this.views.push({ tables: savedTables(output, 4) })
    await until(() => this.wanted[0] !== 'pending', { what: 'an answer', everyMs: 1 })
  }

  observe(object: KernelObject): void {
    this.observed.push(object)
    this.#observe([object])
  }

  update(): Promise<void> {
    return this.#firewall.update()
  }

  get plainDrop(): string | undefined {
    return this.#firewall.plainDrop
  }

  get condition(): string | undefined {
    return this.health.active().find(({ code }) => code === 'FORWARD_DROPPED')?.detail
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort()
    await this.#following
  }
}

const inForward = (...what: readonly string[]) => what.map((each) => `accept iptables-legacy ip filter FORWARD ${each}`)
const wide = inForward('source 10.244.0.0/16', 'destination 10.244.0.0/16')

test('a policy that is answered is logged and no condition; a rule against pods is one until it goes', async () => {
  await using scene = new Scene()
  await scene.see('DROP')
  assert.deepEqual([scene.wanted, scene.condition], [wide, undefined])
  assert.equal(scene.logged.length, 1)
  await scene.see('DROP', '-A FORWARD -s 10.244.0.0/16 -j DROP')
  assert.match(scene.condition ?? '', /"-A FORWARD -s 10\.244\.0\.0\/16 -j DROP"/)
  await scene.see('DROP')
  assert.equal(scene.condition, undefined)
})

test('an accept that the kernel refuses is a condition', async () => {
  await using scene = new Scene(({ kind }) => kind === 'accept')
  await scene.see('DROP')
  assert.match(scene.condition ?? '', /drops forwarded packets by its policy/)
})

test('a device becomes one of pods with its address: its rule is obeyed from then on', async () => {
  await using scene = new Scene()
  await scene.see('ACCEPT', '-A FORWARD -i cni0 -p udp -j REJECT')
  assert.deepEqual(scene.wanted, inForward('pair 10.244.0.0/16'))
  scene.observe({ kind: 'address', device: 'cni0', prefix: prefix('10.244.1.1/24') })
  await until(() => scene.wanted.length === 0, { what: 'the accept to go', everyMs: 1 })
  assert.deepEqual(scene.side?.devices, ['veth*', 'cni0'])
})

test('a rule that would drop packets of a plain route is known whether or not there is one, and no condition', async () => {
  await using scene = new Scene()
  scene.plainDevice = 'eth0'
  const subnet = { kind: 'route', table: 254, metric: 0, type: 'unicast', protocol: 87 } as const
  const tunnel: KernelObject = { ...subnet, destination: prefix('10.244.2.0/24'), device: 'weft.1' }
  scene.observed = [{ kind: 'address', device: 'cni0', prefix: prefix('10.244.1.1/24') }, tunnel]
  const rule = '-A FORWARD -i eth0 -s 10.244.0.0/16 -j DROP'
  await scene.see('ACCEPT', rule)
  const drops = () => [scene.condition, scene.plainDrop].map((each) => each?.includes(rule))
  assert.deepEqual([drops(), scene.wanted], [[undefined, true], []])
  // The trial's own route leads no pods' packets there.
  scene.observe({ ...tunnel, destination: prefix('10.244.2.0/32'), device: 'eth0', tos: 12, gateway: ip('192.0.2.2') })
  await scene.update()
  assert.deepEqual(drops(), [undefined, true])
  scene.observed = [...scene.observed.slice(0, 1), { ...tunnel, device: 'eth0', gateway: ip('192.0.2.2') }]
  await scene.update()
  assert.deepEqual(drops(), [true, true])
  await scene.see('DROP')
  assert.equal(scene.plainDrop, undefined)
  await scene.see('ACCEPT', '-A FORWARD -i weft.1 -s 10.244.0.0/16 -j DROP')
  assert.equal(scene.plainDrop, undefined)
})

test("the administrator's chain is called while the firewall plugin accepts packets, and made if it has a name", async () => {
  await using scene = new Scene()
  await scene.see('ACCEPT', ':CNI-ADMIN - [0:0]')
  assert.deepEqual(scene.wanted, [])
  scene.desired = [subnetChain('forward', prefix('10.60.0.0/24'))]
  await scene.update()
  const call = (target: string) => `admin-call iptables-legacy ip filter FORWARD ${target}`
  assert.deepEqual(scene.wanted, [call('CNI-ADMIN')])
  scene.desired.push({ kind: 'nft-chain', family: 'inet', table: 'weft', chain: 'admin_NOMAD-ADMIN', digests: [] })
  await scene.update()
  assert.deepEqual(scene.wanted, [call('CNI-ADMIN'), call('NOMAD-ADMIN')])
  assert.deepEqual(scene.side?.adminChains, ['CNI-ADMIN', 'NOMAD-ADMIN'])
})

test('without accepts (--iptables-forward-rules=false) it is called, too', async () => {
  await using scene = new Scene(undefined, false)
  scene.desired = [subnetChain('forward', prefix('10.60.0.0/24'))]
  await scene.see('DROP', ':CNI-ADMIN - [0:0]')
  assert.deepEqual(scene.wanted, ['admin-call iptables-legacy ip filter FORWARD CNI-ADMIN'])
})

test('senders that the kernel refused are wanted again with the next update, and only then', async () => {
  let isRefused = true
  await using scene = new Scene(({ kind }) => isRefused && kind === 'nft-element')
  const guard = { kind: 'nft-chain', family: 'inet', table: NFT_TABLE, chain: 'tunnel_input', digests: [] } as const
  scene.desired = [guard, { kind: 'link', name: 'mv0', up: true, form: { type: 'bridge' } }]
  await scene.see('ACCEPT')
  assert.equal(scene.guards, 1)
  isRefused = false
  for (let n = 0; n < 3; n++) await scene.update()
  assert.equal(scene.guards, 2)
})
