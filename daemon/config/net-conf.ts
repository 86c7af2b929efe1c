// The network configuration in flannel's JSON: keys in any letter case, defaults filled in, errors with path, value and rule.
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [key: string]: Json }

/** One family's share of the configuration. */
export type NetworkRange = {
  readonly network: Prefix
  /** Prefix length of each node's subnet. */
  readonly subnetLength: number
  /** Network addresses of the first and the last subnet that may be leased. */
  readonly subnetMin: Ip
  readonly subnetMax: Ip
}

export type NetConf = {
  readonly families: PerFamily<NetworkRange>
  readonly enableNFTables: boolean
  readonly backendType: string
  /** The object under `Backend` as written; the backend parses its own keys without regard to case. */
  readonly backend: JsonObject
}
