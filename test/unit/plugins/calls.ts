// Calls of plugins for their unit tables: an ordinary one, and what is laid over it.
import { formatIp, formatPrefix } from '../../../ipam/address.ts'
import type { InterfaceRoute } from '../../../plugins/attachment.ts'
import type { AddCall, DelCall } from '../../../plugins/cni/types.ts'
import type { Version } from '../../../plugins/cni/version.ts'

export const addCall = (
  type: string,
  configuration: object = {},
  { args = '', version = '1.1.0' }: { readonly args?: string; readonly version?: Version } = {}
): AddCall => ({
  verb: 'ADD',
  plugin: type,
  network: 'net1',
  version,
  configuration: { name: 'net1', cniVersion: version, type, ...configuration },
  containerId: 'c1',
  ifname: 'eth0',
  netns: '/run/netns/c1',
  args,
  path: [],
  mayBeOwnNamespace: false
})

export function delCall(type: string, configuration: object = {}): DelCall {
  const { netns: _, ...rest } = addCall(type, configuration)
  return { ...rest, verb: 'DEL' }
}

/** A route in the words of `ip route`. */
export const routeText = ({ destination, gateway }: InterfaceRoute): string =>
  `${formatPrefix(destination)}${gateway === undefined ? '' : ` via ${formatIp(gateway)}`}`
