// A network namespace of its own for a test file about the kernel port, and an observer to wait with.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { after, afterEach, before } from 'node:test'
import type { Log } from '../../daemon/base/log.ts'
import { openKernel } from '../../daemon/kernel/kernel.ts'
import type { FirewallPort } from '../../daemon/kernel/nftables/port.ts'
import { newNetworkNamespace } from '../../daemon/os/libc.ts'
import { type Change, difference } from '../../daemon/state/difference.ts'
import type { Kernel, Observation } from '../../daemon/state/kernel.ts'
import {
  type KernelObject,
  type Key,
  keyOf,
  type Link,
  type Mac,
  type Route,
  stateOf
} from '../../daemon/state/object.ts'
import { type Ip, type Prefix, parseIp, parsePrefix } from '../../ipam/address.ts'

export const skip = process.getuid?.() === 0 ? false : 'needs root'
export const sandboxName = `weft-kernel-${process.pid}`
export const sandboxPath = `/run/netns/${sandboxName}`
export const quiet: Log = {
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined
}
/** Firewall objects have their own tests; none are used here. */
const noFirewall: FirewallPort = {
  read: async () => [],
  apply: async (changes) => changes.map((change) => ({ change, error: new Error('not here') })),
  removeTables: async () => [],
  removeOtherChains: async () => undefined,
  changes: async function* () {},
  [Symbol.asyncDispose]: async () => undefined
}

export const ip = (text: string): Ip => parseIp(text) ?? assert.fail(text)
export const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
export const mac = (text: string): Mac => text as Mac
export const put = (object: KernelObject): Change => ({ do: 'put', object })
export const remove = (object: KernelObject): Change => ({ do: 'remove', object })
export const run = (...command: readonly string[]): string =>
  execFileSync(command[0] ?? '', command.slice(1), { encoding: 'utf8' })

export const open = (
  more: {
    readonly receiveBytes?: number
    readonly sysctls?: () => readonly string[]
    readonly offloads?: () => readonly string[]
    readonly nft?: FirewallPort
  } = {}
): Promise<Kernel> => openKernel({ log: quiet, nft: noFirewall, ...more })

export async function applied(kernel: Pick<Kernel, 'apply'>, ...changes: readonly Change[]): Promise<void> {
  for (const { error } of await kernel.apply(changes)) assert.ifError(error)
}

/** An observer's state, from its observations; `until` waits for a condition on it. */
export class Watch implements AsyncDisposable {
  readonly state = new Map<Key, KernelObject>()
  readonly observations: Observation[] = []
  readonly #stop = new AbortController()
  readonly #ended: Promise<void>
  #look: () => void = () => undefined

  constructor(
    kernel: Kernel,
    interest: (object: KernelObject) => boolean = () => true,
    desired?: (key: Key) => KernelObject | undefined
  ) {
    this.#ended = this.#follow(kernel, interest, desired)
  }

  async #follow(
    kernel: Kernel,
    interest: (object: KernelObject) => boolean,
    desired?: (key: Key) => KernelObject | undefined
  ): Promise<void> {
    for await (const observation of kernel.observe(interest, this.#stop.signal, desired)) {
      this.observations.push(observation)
      if (observation.kind === 'everything') {
        this.state.clear()
        for (const [key, object] of observation.state) this.state.set(key, object)
      } else if (observation.object === undefined) this.state.delete(observation.key)
      else this.state.set(observation.key, observation.object)
      this.#look()
    }
  }

  until(what: string, condition: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const deadline = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), 60_000)
      this.#look = () => {
        if (!condition()) return
        clearTimeout(deadline)
        this.#look = () => undefined
        resolve()
      }
      this.#look()
    })
  }

  /** Waits until these objects are observed as wanted. */
  shows(...wanted: readonly KernelObject[]): Promise<void> {
    const desired = stateOf(wanted)
    return this.until(wanted.map(keyOf).join(', '), () => difference(desired, this.state, desired.keys()).length === 0)
  }

  lacks(object: KernelObject): Promise<void> {
    return this.until(`the end of ${keyOf(object)}`, () => !this.state.has(keyOf(object)))
  }

  dumps(): readonly string[] {
    return this.observations.flatMap((one) => (one.kind === 'everything' ? [one.why] : []))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#ended
  }
}

export const bridge: Link = {
  kind: 'link',
  name: 'br0',
  form: { type: 'bridge' },
  up: true,
  mtu: 1400,
  alias: 'a bridge',
  mac: mac('02:00:00:00:00:01')
}
export const vxlan: Link = {
  kind: 'link',
  name: 'weft.9',
  form: { type: 'vxlan', vni: 9, port: 8472, local: ip('10.9.0.1'), parent: 'br0', learning: false, gbp: false },
  up: true,
  mac: mac('02:00:00:00:00:09')
}
export const address4: KernelObject = { kind: 'address', device: 'br0', prefix: prefix('10.9.0.1/24') }
export const address6: KernelObject = { kind: 'address', device: 'br0', prefix: prefix('fd00:9::1/64'), nodad: true }
export const route = (destination: string, more: Partial<Route>): Route => ({
  kind: 'route',
  table: 254,
  destination: prefix(destination),
  metric: destination.includes(':') ? 1024 : 0,
  type: 'unicast',
  protocol: 87,
  ...more
})
export const veth = (name: string, more: Partial<Link> = {}): Link => ({
  kind: 'link',
  name,
  form: { type: 'veth', peer: { name: 'eth0', sandbox: sandboxPath, mac: mac('02:00:00:00:00:0a'), mtu: 1400 } },
  up: true,
  ...more
})

/**
 * Moves the main thread of this test file's process into an empty namespace, so that the host's is never touched, and
 * makes one sandbox. After each test all links but lo go.
 */
export function inOwnNamespace(): void {
  if (skip) return
  before(() => {
    run('ip', 'netns', 'add', sandboxName)
    newNetworkNamespace()
    run('ip', 'link', 'set', 'lo', 'up')
  })
  afterEach(() => {
    for (const line of run('ip', '-o', 'link').split('\n')) {
      const name = /^\d+: ([^:@]+)/.exec(line)?.[1]
      if (name !== undefined && name !== 'lo') spawnSync('ip', ['link', 'del', name])
    }
  })
  after(() => run('ip', 'netns', 'del', sandboxName))
}
