// The plugins that put a pod on a bridge, each with the keys for the same network: what is true of one must be true of
// the other. And how both are called.
import assert from 'node:assert/strict'
import type { Json } from '../lab/cni.ts'
import type { Pod } from '../lab/pod.ts'
import { addressesOf, type CniHost } from './cni-host.ts'

export type Subject = {
  readonly type: string
  /** Keys of a network with gateway and these range sets. */
  readonly network: (...subnets: readonly string[]) => Json
}

const sets = (subnets: readonly string[]) => subnets.map((subnet) => [{ subnet }])
export const subjects: readonly Subject[] = [
  { type: 'weft', network: (...subnets) => ({ mode: 'bridge', bridge: 'br1', ipam: { ranges: sets(subnets) } }) },
  {
    type: 'bridge',
    network: (...subnets) => ({
      ...{ bridge: 'br1', isDefaultGateway: true, ipMasq: true },
      ipam: { type: 'host-local', ranges: sets(subnets) }
    })
  }
]

export const interfacesOf = (result: Json) => result.interfaces as readonly Json[]
const addressOf = (result: Json) => String(addressesOf(result)[0]).split('/')[0] as string

type More = { readonly ifname?: string; readonly args?: string; readonly pod?: Pod }

/** Calls of a subject for the network 10.10.0.0/24 on a host that is there by the time of the first. */
export function callsOf({ type, network }: Subject, host: () => CniHost) {
  const config = network('10.10.0.0/24')
  const veths = async () => (await host().links()).filter((name) => name.startsWith('veth'))
  return {
    config,
    veths,
    /** Nothing is left of any pod of that network. */
    async isClean(): Promise<void> {
      assert.deepEqual([await veths(), await host().reserved()], [[], []])
      assert.doesNotMatch(await host().ruleset(), /10\.10\.0\./)
    },
    /** A pod that is attached, with keys over those of the network. */
    async added(over: Json = {}, more: More = {}) {
      const pod = more.pod ?? (await host().pod())
      const call = { config: { ...config, ...over }, pod, ...more }
      const result = await host().ok('ADD', type, call)
      return { pod, call, result, address: addressOf(result), del: () => host().ok('DEL', type, call) }
    }
  }
}
