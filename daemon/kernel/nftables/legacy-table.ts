// Asks the kernel how many rules a legacy iptables table has and whether they changed, as iptables does: getsockopt(2)
// (<linux/netfilter_ipv4/ip_tables.h>). These tables send no notifications.
import { createHash } from 'node:crypto'
import type { Family } from '../../../ipam/address.ts'
import { CallFailed, close, datagramSocket, ipOption } from '../../os/libc.ts'

/** IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; those of IPv6 have the same numbers. */
const GET_INFO = 64
const GET_ENTRIES = 65
/** struct ipt_getinfo: name, valid hooks, five hook entries, five underflows, number of entries, their size. */
const NAME_OCTETS = 32
const INFO_OCTETS = 84
const INFO = { entries: 76, size: 80 } as const
/** struct ipt_get_entries: name, size, then the entries, aligned to eight octets. */
const ENTRIES_AT = 40
/** struct ipt_entry and ip6t_entry: where the next entry's offset and the counters are. */
const ENTRY = { 4: { next: 90, counters: 96 }, 6: { next: 142, counters: 152 } } as const
const COUNTER_OCTETS = 16

export type LegacySize = { readonly entries: number; readonly octets: number }

export class LegacyTables implements Disposable {
  readonly #sockets = new Map<Family, number>()

  /** The size of a table that exists: asking for another one creates it. Errors: CallFailed. */
  async size(family: Family, table: string): Promise<LegacySize> {
    const info = named(table, INFO_OCTETS)
    await ipOption(this.#socket(family), family, GET_INFO, info)
    return { entries: info.readUInt32LE(INFO.entries), octets: info.readUInt32LE(INFO.size) }
  }

  /**
   * A digest of a table's rules without their counters; `undefined` when its size is no longer this one. Errors:
   * CallFailed.
   */
  async digest(family: Family, table: string, { octets }: LegacySize): Promise<string | undefined> {
    const answer = named(table, ENTRIES_AT + octets)
    answer.writeUInt32LE(octets, NAME_OCTETS)
    try {
      await ipOption(this.#socket(family), family, GET_ENTRIES, answer)
    } catch (error) {
      if (error instanceof CallFailed && error.errnoName === 'EAGAIN') return undefined
      throw error
    }
    const entries = answer.subarray(ENTRIES_AT)
    clearCounters(entries, family)
    return createHash('sha1').update(entries).digest('base64')
  }

  #socket(family: Family): number {
    const fd = this.#sockets.get(family) ?? datagramSocket(family)
    this.#sockets.set(family, fd)
    return fd
  }

  [Symbol.dispose](): void {
    for (const fd of this.#sockets.values()) close(fd)
    this.#sockets.clear()
  }
}

function named(table: string, octets: number): Buffer {
  const bytes = Buffer.alloc(octets)
  bytes.write(table, 0, NAME_OCTETS - 1)
  return bytes
}

function clearCounters(entries: Buffer, family: Family): void {
  const { next, counters } = ENTRY[family]
  for (let at = 0; at + counters + COUNTER_OCTETS <= entries.length; ) {
    entries.fill(0, at + counters, at + counters + COUNTER_OCTETS)
    const length = entries.readUInt16LE(at + next)
    if (length === 0) return
    at += length
  }
}
