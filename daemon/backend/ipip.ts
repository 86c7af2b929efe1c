// ipip backend: pods' IPv4 packets between nodes in IPv4 (IP protocol 4, RFC 2003); plain routes where encapsulation is
// not needed.
import { type Ip, type PerFamily, type Prefix, sameIp } from '../../ipam/address.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { booleanKey, findKey } from '../config/keys.ts'
import type { Lease } from '../lease/lease.ts'
import type { Feature } from '../state/feature.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import type { Recognised } from '../state/ownership.ts'
import type { Backend, Claim, DataPath, Device, PeerRoutes, TunnelEntry } from './backend.ts'
import { directRoute, isOnLink, trialRoutes } from './direct.ts'
import { ipipDevice, ipv4Peer, ipv4Underlay, tunnelRoute } from './ipv4-tunnel.ts'

export type IpipConfig = {
  /** Direct routes to peers on our own link; absent: once probes have passed on them. */
  readonly directRouting?: boolean
}

/** Bytes that encapsulation adds: the outer IPv4 header. */
const OVERHEAD = 20
const DEVICE = 'weft.ipip'
const FLANNEL_DEVICE = 'flannel.ipip'

/** flanneld's device where there is one with our address. */
const deviceName = ({ links, localIp }: Node): string =>
  links.find(
    ({ name, form }) =>
      name === FLANNEL_DEVICE && form?.type === 'ipip' && form.fou === undefined && sameIp(form.local, localIp[4])
  )?.name ?? DEVICE

const trial: Feature = {
  ...{ kind: 'link', name: 'try-ipip' },
  form: { type: 'ipip', local: { family: 4, value: 0x7f00_0001n } }
}

export const ipip = {
  type: 'ipip',
  keys: {
    DirectRouting: {
      rule: 'true or false',
      default: 'once proven',
      meaning:
        "plain routes to nodes that the kernel reaches on the interface's own link, without a gateway; without it, to each once probes of full size have passed in both directions"
    }
  },

  config: (keys: JsonObject): IpipConfig =>
    findKey(keys, 'DirectRouting') === undefined ? {} : { directRouting: booleanKey(keys, 'DirectRouting', false) },

  features: (): readonly Feature[] => [],

  /** One, so that weftd joins only where the kernel has it. */
  dataPaths: (): readonly DataPath[] => [{ name: 'ipip', features: [trial] }],

  recognises: ({ name, form }: Device): Recognised | undefined => {
    if (form !== undefined && form.type !== 'ipip') return undefined
    if (name === DEVICE) return 'own'
    if (name === FLANNEL_DEVICE) return 'adoptable'
    return form === undefined ? undefined : 'foreign'
  },
  flannelDevice: { name: /^flannel\.ipip$/, outlivesFlanneld: false },

  /** What comes with IP protocol 4 to our address is taken by the device, unless another tunnel is for its sender alone. */
  entry: (node: Node): TunnelEntry => ({ outer: 'meta l4proto 4', isShared: true, device: deviceName(node) }),

  claims: (): readonly Claim[] => [],
  namesOurDevice: (): boolean => false,
  namesAnotherDevice: (): boolean => false,

  mtu: (node: Node): number => ipv4Underlay('ipip', node, OVERHEAD) - OVERHEAD,
  underlayMtu: (node: Node): number => ipv4Underlay('ipip', node, OVERHEAD),

  publish: (): PerFamily<Json> => ({}),

  own: (node: Node): readonly KernelObject[] =>
    ipipDevice(node, {
      ...{ name: deviceName(node), mtu: node.deviceMtu - OVERHEAD, because: 'our end of the ipip tunnel' }
    }),

  /** The device's, flanneld's too. */
  held: (subnet: Prefix): Ip => subnet.ip,
  heldByAll: true,

  asksRoutes: ({ directRouting }: IpipConfig): boolean => directRouting !== false,

  plain: ({ directRouting }: IpipConfig) => (directRouting === false ? undefined : trialRoutes),

  peer: (lease: Lease, node: Node, config: IpipConfig, routes: PeerRoutes): readonly KernelObject[] => {
    const peer = ipv4Peer(lease)
    if (peer === undefined) return []
    const { subnet, publicIp, because } = peer
    const isPlain = routes[4]?.passes ?? config.directRouting === true
    return isPlain && config.directRouting !== false && isOnLink(node, routes[4])
      ? [directRoute(node, subnet, publicIp, because)]
      : [tunnelRoute(deviceName(node), subnet, publicIp, because)]
  }
} satisfies Backend<IpipConfig>
