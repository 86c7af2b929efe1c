// Asks the kernel how many rules a legacy iptables table has and whether they changed, as iptables does: getsockopt(2)
// (<linux/netfilter_ipv4/ip_tables.h>). These tables send no notifications.
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
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

/** Which legacy tables exist in this network namespace. */
export const LEGACY_NAMES = { 4: '/proc/net/ip_tables_names', 6: '/proc/net/ip6_tables_names' } as const

/**
 * The legacy tables that exist. Asked before anything else: the kernel creates a table at first use, even by listing.
 */
export async function legacyTables(family: Family): Promise<readonly string[]> {
  const names = await readFile(LEGACY_NAMES[family], 'utf8').catch(() => '')
  return names.split('\n').filter((name) => name !== '')
}

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
  async digest(family: Family, table: string, size: LegacySize): Promise<string | undefined> {
    const entries = await this.entries(family, table, size)
    return entries && digestOf(entries)
  }

  /** A table's rules as the kernel has them, with counters of zero; otherwise as `digest`. */
  async entries(family: Family, table: string, { octets }: LegacySize): Promise<Buffer | undefined> {
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
    return entries
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

export const digestOf = (entries: Buffer): string => createHash('sha1').update(entries).digest('base64')

/** How many bytes a rule has before its target. */
const TARGET_OFFSET = { 4: 88, 6: 140 } as const
/** The target of the entry that begins a chain of somebody's, and of the last one. */
const ERROR = 'ERROR'

/** The chains in a table's rules that are no built-in ones (struct xt_error_target). */
export function chainsIn(entries: Buffer, family: Family): readonly string[] {
  const { next } = ENTRY[family]
  const chains: string[] = []
  for (let at = 0; at + next + 2 <= entries.length; ) {
    const length = entries.readUInt16LE(at + next)
    const target = at + entries.readUInt16LE(at + TARGET_OFFSET[family])
    if (length === 0 || target + 2 * NAME_OCTETS > entries.length) break
    // struct xt_entry_target: size, 29 octets of name, revision; then the chain's name.
    if (textAt(entries, target + 2) === ERROR) chains.push(textAt(entries, target + NAME_OCTETS))
    at += length
  }
  // The last entry of a table has the target, too, and no chain's name.
  return chains.slice(0, -1)
}

const textAt = (bytes: Buffer, at: number): string => {
  const end = bytes.indexOf(0, at)
  return bytes.toString('latin1', at, Math.min(end < 0 ? bytes.length : end, at + NAME_OCTETS))
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
