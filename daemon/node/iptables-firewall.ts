// Keeps this node's chains for masquerading and forwarding in the iptables that the host uses, where nftables is not to
// have them.
import type { Log } from '../base/log.ts'
import { iptablesChains } from '../firewall/iptables-chains.ts'
import type { FirewallKind, FirewallOptions } from '../firewall/node-chains.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { IptablesTool } from '../state/object.ts'
import { networksOf, type Place } from './place.ts'

export type { FirewallKind, FirewallOptions }

/** --firewall. */
export type FirewallFlag = 'auto' | FirewallKind

/** What the kernel lacks of NAT in nftables (kernel/nftables/nat-trial.ts). */
type MissingNat = { readonly what: 'masquerade' | 'nat'; readonly why: string }

/** `only`: the one iptables that can have the chains on this kernel, whichever the host uses. */
export type FirewallChoice = { readonly kind: FirewallKind; readonly only?: IptablesTool }

/** `missing`: what nftables lacks, asked only where it matters. */
export async function chooseFirewall(
  flag: FirewallFlag,
  missing: () => Promise<MissingNat | undefined>,
  log: Log
): Promise<FirewallChoice> {
  if (flag !== 'auto') return { kind: flag }
  const found = await missing()
  if (found === undefined) return { kind: 'nftables' }
  log.warn({ reason: found.why }, `nftables of this kernel lacks ${found.what}: iptables masquerades and forwards`)
  // Without chains of type nat iptables-nft has no table nat.
  return { kind: 'iptables', ...(found.what === 'nat' && { only: 'iptables-legacy' }) }
}

export type IptablesFirewallDeps = {
  readonly reconciler: Pick<Reconciler, 'want'>
  readonly options: FirewallOptions
  readonly only?: IptablesTool | undefined
  readonly log: Log
}

export class IptablesFirewall {
  readonly #deps: IptablesFirewallDeps
  readonly #known = Promise.withResolvers<void>()
  #tool: IptablesTool | undefined
  #place: Place | undefined

  constructor(deps: IptablesFirewallDeps) {
    this.#deps = deps
  }

  /** Moves the chains whenever the host uses another iptables, until the iterable ends. */
  async follow(tools: AsyncIterable<IptablesTool>): Promise<void> {
    for await (const used of tools) {
      const tool = this.#deps.only ?? used
      this.#deps.log.info({ tool, before: this.#tool }, `masquerading and forwarding are chains of ${tool}`)
      this.#tool = tool
      await this.#update()
      this.#known.resolve()
    }
  }

  /** Puts the chains for this place; resolves when that was tried. Refusals are retried and reported as all are. */
  async use(place: Place): Promise<void> {
    this.#place = place
    await this.#known.promise
    await this.#update()
  }

  async #update(): Promise<void> {
    if (this.#place === undefined || this.#tool === undefined) return
    const { node, conf } = this.#place
    const { options, reconciler } = this.#deps
    await reconciler.want('iptables', iptablesChains(node.subnet, networksOf(conf), options, this.#tool))
  }
}
