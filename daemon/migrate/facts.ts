// What is found on a node before it is moved: the types, shared by what looks, plans and moves.
import type { Flanneld } from './settings.ts'

/** Who runs flanneld, and so can stop it for good. */
export type RunBy =
  | { readonly kind: 'unit'; readonly unit: string; readonly isEnabled: boolean }
  | { readonly kind: 'kubernetes' }
  | { readonly kind: 'nobody' }

export type KnownFlanneld = Flanneld & { readonly runBy: RunBy }

/** The device of flanneld's backend. */
export type FlannelDevice = {
  readonly name: string
  readonly mac: string
  /** Weft's backend that adopts it; absent: this weftd has none that does. */
  readonly backend?: string
  /** Whether it stays when flanneld ends. */
  readonly outlivesFlanneld: boolean
}

/** flannel's configuration list, as the runtime reads it. */
export type Conflist = {
  readonly path: string
  readonly network: string
  readonly types: readonly string[]
}

export type Facts = {
  /** As it runs, or as the record has it. */
  readonly flanneld?: KnownFlanneld
  readonly flanneldPids: readonly number[]
  readonly weftdAnswers: boolean
  /** A unit weftd.service is installed. */
  readonly hasWeftdUnit: boolean
  readonly subnet: readonly string[]
  readonly ipMasq: boolean
  readonly devices: readonly FlannelDevice[]
  readonly conflist?: Conflist
  /** Reserved addresses of the list's network. */
  readonly pods: number
  /** flannel's chains and tables in the firewall. */
  readonly chains: readonly string[]
  /** Chains of the reference's portmap. */
  readonly hostPortChains: number
  /** Executables of other programs that have the names of Weft's. */
  readonly foreignPlugins: readonly string[]
  /** Weft's plugins can be installed from the directory. */
  readonly hasPluginSource: boolean
  /** A move was begun, and not taken back. */
  readonly record?: MoveRecord
}

/** What is kept of a move, for its repetition and the way back. */
export type MoveRecord = {
  readonly version: 1
  /** ISO 8601. */
  readonly at: string
  /** What was asked for last. */
  readonly direction: 'apply' | 'rollback'
  /** Every step of `direction` was done. */
  readonly isComplete: boolean
  readonly flanneld: KnownFlanneld
  /** Where flannel's list was; its bytes are beside the record. */
  readonly conflist?: Conflist & { readonly mode: number }
  /** Names of executables whose originals are beside the record. */
  readonly plugins: readonly string[]
}

/** Commands for hosts where no unit runs the daemons. */
export type Commands = {
  readonly stopFlanneld?: string | undefined
  readonly startFlanneld?: string | undefined
  readonly startWeftd?: string | undefined
  readonly stopWeftd?: string | undefined
}
