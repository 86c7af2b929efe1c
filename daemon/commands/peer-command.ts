// Environment and input of the commands of the network configuration: another node's lease, or this node's place.
import { formatIp, formatPrefix, type Ip, type PerFamily, type Prefix } from '../../ipam/address.ts'
import type { Command, Commands } from '../backend/backend.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'

export type Environment = Readonly<Record<string, string>>

/** The commands for one lease, as they are run and noted. */
export type PeerCommand = {
  /** The key of the lease. */
  readonly key: string
  readonly environment: Environment
  readonly input: string
  readonly added?: Command
  readonly removed?: Command
}

type Ends = { readonly subnet: PerFamily<Prefix>; readonly publicIp: PerFamily<Ip> }

/** flannel's names. A family that is missing has no variables. */
export const endsIn = ({ subnet, publicIp }: Ends): Environment => ({
  ...(subnet[4] && { SUBNET: formatPrefix(subnet[4]) }),
  ...(subnet[6] && { IPV6SUBNET: formatPrefix(subnet[6]) }),
  ...(publicIp[4] && { PUBLIC_IP: formatIp(publicIp[4]) }),
  ...(publicIp[6] && { PUBLIC_IPV6: formatIp(publicIp[6]) })
})

/** This node's own, for the commands at start and stop. */
export const ownEnvironment = (ends: Ends, networks: PerFamily<Prefix>): Environment => ({
  ...(networks[4] && { NETWORK: formatPrefix(networks[4]) }),
  ...(networks[6] && { IPV6NETWORK: formatPrefix(networks[6]) }),
  ...endsIn(ends)
})

/** `undefined`: the configuration has no command for leases. */
export function peerCommand(lease: Lease, commands: Commands): PeerCommand | undefined {
  const { peerAdded: added, peerRemoved: removed } = commands
  if (added === undefined && removed === undefined) return undefined
  return {
    ...{ key: leaseKey(lease), environment: endsIn(lease), input: commands.input(lease) },
    ...(added && { added }),
    ...(removed && { removed })
  }
}

/** Whether what was run for the lease is still what it asks for. */
export const sameCommand = (a: PeerCommand, b: PeerCommand): boolean => essence(a) === essence(b)

const essence = ({ environment, input, added }: PeerCommand): string =>
  JSON.stringify([Object.entries(environment).sort(), input, added?.text])

/** `subnet 10.1.2.0/24 of 192.0.2.2`. */
export const aboutOf = ({ key, environment }: Pick<PeerCommand, 'key' | 'environment'>): string => {
  const [subnet, ip] = [
    environment.SUBNET ?? environment.IPV6SUBNET ?? key,
    environment.PUBLIC_IP ?? environment.PUBLIC_IPV6
  ]
  return `subnet ${subnet}${ip === undefined ? '' : ` of ${ip}`}`
}
