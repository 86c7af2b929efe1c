// Helpers for tests of a store: the conditions it raises, the leases its watch reports, and a lease request.

import type { Log } from '../../daemon/base/log.ts'
import { parseNetConf } from '../../daemon/config/net-conf.ts'
import type { ConditionCode } from '../../daemon/health/conditions.ts'
import { type Lease, leaseKey, parseLeaseKey } from '../../daemon/lease/lease.ts'
import type { LeaseRequest, Store, StoreDeps } from '../../daemon/lease/store.ts'
import { parseIp } from '../../ipam/address.ts'

export const CONFIG = '{"Network":"10.77.0.0/16","Backend":{"Type":"vxlan"}}'

/** The lease request of the node with this address. */
export const wishOf = (
  publicIp: string,
  more: { readonly conf?: string; readonly previous?: string } = {}
): LeaseRequest => ({
  node: `node-${publicIp}`,
  network: parseNetConf(more.conf ?? CONFIG),
  publicIp: { [publicIp.includes(':') ? 6 : 4]: parseIp(publicIp)! },
  previous: more.previous === undefined ? {} : parseLeaseKey(more.previous)!,
  backendType: 'vxlan',
  namesOurDevice: () => false,
  backendData: (held) =>
    held?.backendData[4] === undefined
      ? { 4: { VNI: 1, VtepMAC: `02:00:00:00:00:${publicIp.split('.').at(-1)?.padStart(2, '0')}` } }
      : held.backendData
})

export class Conditions {
  readonly active = new Map<ConditionCode, string>()
  /** Cures that replaced the table's. */
  readonly cures = new Map<ConditionCode, string | undefined>()
  /** Every condition that was ever raised. */
  readonly raised = new Set<ConditionCode>()
  readonly logged: string[] = []

  get deps(): StoreDeps {
    const log = (_: object, message: string) => void this.logged.push(message)
    return {
      log: { error: log, warn: log, info: log, debug: () => undefined } satisfies Log,
      report: {
        raise: (code, detail, cure) => {
          this.active.set(code, detail)
          this.cures.set(code, cure)
          this.raised.add(code)
        },
        clear: (code) => void this.active.delete(code)
      }
    }
  }
}

/** Follows a store's watch until it is disposed. */
export class Watcher implements AsyncDisposable {
  readonly leases = new Map<string, Lease>()
  readonly malformed = new Map<string, string>()
  /** Each text that was told, in order. */
  readonly configurations: (string | undefined)[] = []
  lists = 0
  readonly #ended = new AbortController()
  readonly #following: Promise<void>

  constructor(store: Store) {
    this.#following = this.#follow(store)
  }

  get keys(): readonly string[] {
    return [...this.leases.keys()].sort()
  }

  async #follow(store: Store): Promise<void> {
    for await (const event of store.watch(this.#ended.signal)) {
      switch (event.kind) {
        case 'list':
          this.lists++
          this.leases.clear()
          for (const lease of event.leases) this.leases.set(leaseKey(lease), lease)
          break
        case 'put':
          this.leases.set(leaseKey(event.lease), event.lease)
          this.malformed.delete(leaseKey(event.lease))
          break
        case 'gone':
          this.leases.delete(event.key)
          this.malformed.delete(event.key)
          break
        case 'configuration':
          this.configurations.push(event.text)
          break
        case 'malformed':
          this.malformed.set(event.key, event.error.message)
          break
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#following
  }
}
