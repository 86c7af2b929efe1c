// Plugins by type: weftd looks them up here, and scripts/build-plugins installs exactly these names.
import { bandwidth } from './bandwidth.ts'
import { bridge } from './bridge.ts'
import { firewall } from './firewall.ts'
import { flannel } from './flannel.ts'
import { hostLocal } from './host-local.ts'
import { loopback } from './loopback.ts'
import { macvlan } from './macvlan.ts'
import type { ForwardingPlugin, Plugin } from './plugin.ts'
import { portmap } from './portmap.ts'
import { ptp } from './ptp.ts'
import { staticAddresses } from './static.ts'
import { tuning } from './tuning.ts'
import { weft } from './weft.ts'

const plugins: readonly Plugin[] = [
  ...[weft, loopback, bridge, ptp, macvlan],
  ...[hostLocal, staticAddresses],
  ...[portmap, bandwidth, tuning, firewall]
]
const forwarding: readonly ForwardingPlugin[] = [flannel]

export const pluginTypes: readonly string[] = [...plugins, ...forwarding].map((plugin) => plugin.type)

export const pluginNamed = (type: string): Plugin | undefined => plugins.find((plugin) => plugin.type === type)

/** A plugin that forwards to another one. */
export const forwardingPluginNamed = (type: string): ForwardingPlugin | undefined =>
  forwarding.find((plugin) => plugin.type === type)
