// Has the chains of the administrator called first where packets are forwarded: `iptablesAdminChainName` of the
// firewall plugin, whose rules come before what the plugin accepts.
import type { Family } from '../../ipam/address.ts'
import type { ForeignTable } from '../state/foreign-chain.ts'
import type { AdminCall } from '../state/object.ts'

const FORWARD = 'FORWARD'

export type AdminChain = {
  readonly name: string
  /** Where no table has the chain: it is made, as by the reference, so that rules can be added to it later. */
  readonly isMade: boolean
}

/** A call in each iptables that has the chain, and for each family whose packets are accepted one. */
export function adminCalls(
  tables: readonly ForeignTable[],
  chains: readonly AdminChain[],
  accepted: ReadonlySet<Family>
): readonly AdminCall[] {
  const filters = tables.filter(({ table, tool }) => table === 'filter' && tool !== 'nft')
  return chains.flatMap(({ name, isMade }) =>
    (['ip', 'ip6'] as const).flatMap((family) => {
      const ofFamily = filters.filter((table) => table.family === family)
      const having = ofFamily.filter((table) => table.chains.has(name))
      const isMissing = having.length === 0 && isMade && accepted.has(family === 'ip' ? 4 : 6)
      const legacy = ofFamily.every(({ tool }) => tool === 'iptables-legacy') ? ofFamily[0] : undefined
      const tools = isMissing ? [legacy?.tool ?? ('iptables-nft' as const)] : having.map(({ tool }) => tool)
      return tools.map((tool) => ({
        ...{ kind: 'admin-call' as const, tool, family, table: 'filter', chain: FORWARD, target: name },
        ...{ effective: true, because: `the firewall plugin's chain for the administrator, ${name}` }
      }))
    })
  )
}
