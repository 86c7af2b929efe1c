// Calls and results as in CNI 1.1.0: the internal form of every version.
import type { JsonObject } from './field.ts'
import type { Verb, Version } from './version.ts'

type Common = {
  /** The plugin's type: the name under which the executable was called. */
  readonly plugin: string
  /** `name` of the network configuration. */
  readonly network: string
  readonly version: Version
  /** The whole configuration from standard input, keys as they were written. */
  readonly configuration: JsonObject
  /** The same as text; absent where another plugin made the configuration. */
  readonly input?: string
  /** CNI_ARGS, unparsed; see cni/args.ts. */
  readonly args: string
  /** Directories of CNI_PATH, in order. */
  readonly path: readonly string[]
  /** CNI_NETNS_OVERRIDE: the namespace may be the plugin's own. */
  readonly mayBeOwnNamespace: boolean
}

type OfContainer = Common & { readonly containerId: string; readonly ifname: string }

export type AddCall = OfContainer & { readonly verb: 'ADD'; readonly netns: string }
export type CheckCall = OfContainer & { readonly verb: 'CHECK'; readonly netns: string }
/** The namespace may be absent, or no longer exist. */
export type DelCall = OfContainer & { readonly verb: 'DEL'; readonly netns?: string }
export type NetworkCall = Common & { readonly verb: 'GC' | 'STATUS' }
export type VersionCall = { readonly verb: 'VERSION'; readonly plugin: string }

export type AttachmentCall = AddCall | CheckCall | DelCall
export type Call = AttachmentCall | NetworkCall | VersionCall

/** What the environment says of a call, before standard input is read. */
export type Invocation = {
  readonly verb: Verb | { readonly unknown: string }
  readonly containerId: string
  readonly netns: string
  readonly ifname: string
  readonly args: string
  readonly path: readonly string[]
  readonly mayBeOwnNamespace: boolean
}

export type ResultInterface = {
  readonly name: string
  readonly mac?: string
  /** CNI_NETNS for an interface in the container; absent for one of the host. */
  readonly sandbox?: string
  readonly mtu?: number
  readonly socketPath?: string
  readonly pciID?: string
}

export type ResultAddress = {
  /** With prefix length and host part: `10.1.0.5/16`. */
  readonly address: string
  readonly gateway?: string
  /** Index into `interfaces`. */
  readonly interface?: number
}

export type ResultRoute = {
  readonly dst: string
  readonly gw?: string
  readonly mtu?: number
  readonly advmss?: number
  readonly priority?: number
  readonly table?: number
  /** 0 global, 253 link, 254 host. */
  readonly scope?: number
}

export type Dns = {
  readonly nameservers?: readonly string[]
  readonly domain?: string
  readonly search?: readonly string[]
  readonly options?: readonly string[]
}

/** Addresses and routes stay text: a result handed on along a chain must come out unchanged. */
export type Result = {
  readonly interfaces: readonly ResultInterface[]
  readonly ips: readonly ResultAddress[]
  readonly routes: readonly ResultRoute[]
  readonly dns: Dns
}
