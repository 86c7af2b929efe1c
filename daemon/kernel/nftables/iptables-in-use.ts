// Which iptables this host uses, found as Kubernetes' own wrappers of iptables do: by the chains that kubelet makes for
// this purpose, else by the number of rules.
import { setTimeout as pause } from 'node:timers/promises'
import { FAMILIES, type Family } from '../../../ipam/address.ts'
import { SerialQueue } from '../../base/serial-queue.ts'
import type { IptablesChain, IptablesTool } from '../../state/object.ts'
import { KernelError } from '../netlink/error.ts'
import { NETLINK_NETFILTER, NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import type { OwnIptables } from './iptables-own.ts'
import { EMPTY } from './legacy-in-use.ts'
import { chainsIn, digestOf, type LegacySize, LegacyTables, legacyTables } from './legacy-table.ts'
import { NFT_MSG, NFTA_CHAIN, NFTA_TABLE_NAME } from './uapi.ts'

/** Made by kubelet in table mangle. */
const HINTS = ['KUBE-IPTABLES-HINT', 'KUBE-KUBELET-CANARY'] as const
/** iptables' tables. */
const TABLES = Object.keys(EMPTY)
/** Octets of a legacy table that is searched for hints again whenever its size changes. */
const SMALL = 256 << 10

const nameOf = (family: Family): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6')

export class IptablesInUse implements Disposable {
  readonly #socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
  readonly #legacy = new LegacyTables()
  /** By family and table: whether a legacy table of this size and digest has a hint. */
  readonly #searched = new Map<string, { readonly size: LegacySize; readonly digest: string; readonly has: boolean }>()

  /** The kind whose tables have kubelet's hint; `undefined`: neither. Cheap enough to be asked each second. */
  async hinted(): Promise<IptablesTool | undefined> {
    for (const family of FAMILIES) if (await this.#nftHint(family)) return 'iptables-nft'
    for (const family of FAMILIES)
      for (const table of await legacyTables(family))
        if (await this.#legacyHint(family, table)) return 'iptables-legacy'
    return undefined
  }

  /** The kind with more rules of other programs. `own`: Weft's chains, which do not count. */
  async counted(own: readonly IptablesChain[]): Promise<IptablesTool> {
    const ours = (tool: IptablesTool) =>
      own
        .filter((chain) => chain.tool === tool)
        .reduce((sum, { digests, isCalled }) => sum + digests.length + (isCalled ? 1 : 0), 0)
    const legacy = (await this.#legacyRules()) - ours('iptables-legacy')
    // Without legacy rules nobody needs to count the others, which may be many.
    if (legacy <= 0) return 'iptables-nft'
    return legacy > (await this.#nftRules()) - ours('iptables-nft') ? 'iptables-legacy' : 'iptables-nft'
  }

  async #nftHint(family: Family): Promise<boolean> {
    const requests = HINTS.map((chain) =>
      netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getChain, NFPROTO[nameOf(family)])
        .text(NFTA_TABLE_NAME, 'mangle')
        .text(NFTA_CHAIN.name, chain)
        .done()
    )
    const answers = await this.#socket.askAll(requests, `kubelet's chains in ${nameOf(family)} mangle`)
    return answers.some((answer) => !(answer instanceof KernelError))
  }

  async #legacyHint(family: Family, table: string): Promise<boolean> {
    const key = `${family} ${table}`
    const before = this.#searched.get(key)
    const size = await this.#legacy.size(family, table)
    const isSameSize = before?.size.entries === size.entries && before.size.octets === size.octets
    if (before !== undefined && isSameSize && size.octets > SMALL) return before.has
    const entries = await this.#legacy.entries(family, table, size)
    if (entries === undefined) return before?.has ?? false
    const digest = digestOf(entries)
    if (before !== undefined && digest === before.digest) return before.has
    const chains = chainsIn(entries, family)
    const has = HINTS.some((hint) => chains.includes(hint))
    this.#searched.set(key, { size, digest, has })
    return has
  }

  /** Rules without policies, and without the two entries that each chain consists of. */
  async #legacyRules(): Promise<number> {
    let rules = 0
    for (const family of FAMILIES)
      for (const table of await legacyTables(family)) {
        const size = await this.#legacy.size(family, table)
        const entries = await this.#legacy.entries(family, table, size)
        const chains = entries === undefined ? [] : chainsIn(entries, family)
        rules += size.entries - (EMPTY[table] ?? 0) - 2 * chains.length
      }
    return rules
  }

  async #nftRules(): Promise<number> {
    let rules = 0
    for (const family of FAMILIES)
      for (const table of TABLES) {
        const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getRule, NFPROTO[nameOf(family)])
          .text(NFTA_TABLE_NAME, table)
          .done()
        await this.#socket.pieces(request, `the rules of ${nameOf(family)} ${table}`, (messages) => {
          rules += messages.filter((message) => (message.type & 255) === NFT_MSG.newRule).length
          return true
        })
      }
    return rules
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
    this.#legacy[Symbol.dispose]()
  }
}

/** Between looks for kubelet's hint. */
const LOOK_MS = 1_000

/**
 * The kind of iptables in use, and again whenever kubelet's hint says another one, until the signal. Without a hint the
 * kind with more rules at first stays, if its programs are installed; what can't be read says nothing.
 */
export async function* followIptables(own: OwnIptables, signal: AbortSignal): AsyncGenerator<IptablesTool, void> {
  using inUse = new IptablesInUse()
  const counted = async () => inUse.counted(await own.read())
  let [wanted, found]: (IptablesTool | undefined)[] = []
  while (!signal.aborted) {
    const hinted = await inUse.hinted().catch(() => undefined)
    const now: IptablesTool = hinted ?? wanted ?? (await counted().catch(() => 'iptables-nft' as const))
    if (now !== wanted) {
      wanted = now
      const installed = await installedOf(own, now)
      if (installed !== found) yield installed
      found = installed
    }
    await pause(LOOK_MS, undefined, { signal, ref: false }).catch(() => undefined)
  }
}

/** The other kind where this one's programs are not installed and the other's are. */
async function installedOf(own: OwnIptables, wanted: IptablesTool): Promise<IptablesTool> {
  const other = wanted === 'iptables-nft' ? 'iptables-legacy' : 'iptables-nft'
  return !(await own.isInstalled(wanted)) && (await own.isInstalled(other)) ? other : wanted
}
