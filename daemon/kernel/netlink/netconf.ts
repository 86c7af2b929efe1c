// Decodes RTM_NEWNETCONF: the few settings below /proc/sys whose changes the kernel notifies.
import type { Sysctl } from '../../state/object.ts'
import type { NameOf } from './decode.ts'
import { Attributes, type Message } from './message.ts'
import { ALL_DEVICES, familyOf, NETCONFA } from './uapi.ts'

/** The settings of one device, or of all, in a message of devinet.c or addrconf.c. */
export function settingsIn({ body }: Message, nameOf: NameOf): readonly Sysctl[] {
  const netconf = new Attributes(body, 4)
  const [index, family] = [netconf.u32(NETCONFA.ifindex), familyOf(body[0] ?? 0)]
  if (index === undefined || family === undefined) return []
  const device = index === ALL_DEVICES ? 'all' : nameOf(index)
  if (device === undefined) return []
  const forwarding = index === ALL_DEVICES && family === 4 ? 'net/ipv4/ip_forward' : undefined
  const of = (name: string): string => `net/ipv${family}/conf/${device}/${name}`
  const values = [
    [forwarding ?? of('forwarding'), netconf.u32(NETCONFA.forwarding)],
    [of('rp_filter'), family === 4 ? netconf.u32(NETCONFA.rpFilter) : undefined],
    [of(family === 4 ? 'proxy_arp' : 'proxy_ndp'), netconf.u32(NETCONFA.proxyNeighbour)]
  ] as const
  return values.flatMap(([path, value]) =>
    value === undefined ? [] : [{ kind: 'sysctl', path, value: String(value | 0) } as const]
  )
}

/** The end of forwarding cuts pods off: whatever else changed with it, a dump shows. */
export function endsForwarding({ body }: Message): boolean {
  const netconf = new Attributes(body, 4)
  return netconf.u32(NETCONFA.ifindex) === ALL_DEVICES && netconf.u32(NETCONFA.forwarding) === 0
}
