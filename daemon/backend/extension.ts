// Extension backend: the network configuration brings the commands that reach the other nodes. Only names them; each
// node runs them where its administrator allows it (daemon/commands/).
import type { PerFamily } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'
import { findKey, invalid } from '../config/keys.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Link } from '../state/object.ts'
import type { Recognised } from '../state/ownership.ts'
import type { Backend, Claim, Command, Commands } from './backend.ts'
import { gatewayHolder, gatewayOf } from './gateway-holder.ts'

export type ExtensionConfig = Omit<Commands, 'input'>

/** Characters of a command: anything longer belongs in a script. */
const LONGEST = 8_192

const rule = `a command line of at most ${LONGEST} characters`

function commandKey(keys: JsonObject, name: string): Command | undefined {
  const found = findKey(keys, name)
  if (found === undefined) return undefined
  const { value, path } = found
  if (typeof value !== 'string' || value.length > LONGEST || value.includes('\0')) throw invalid(found, value, rule)
  const text = value.trim()
  return text === '' ? undefined : { key: path, text }
}

/** What the node of this lease printed before it took it; flannel writes a JSON string. */
function printedBy(lease: Lease): string {
  const data = lease.backendData[4]
  if (data === undefined || data === null) return ''
  if (typeof data === 'string') return data
  throw new WeftError(
    'LEASE_MALFORMED',
    `lease ${leaseKey(lease)} has the BackendData ${JSON.stringify(data)}, which is no text`,
    'restart the daemon of the node that holds it, or delete the key'
  )
}

export const extension = {
  type: 'extension',
  keys: {
    PreStartupCommand: {
      rule,
      default: 'none',
      meaning: 'run before the node takes its lease; what it prints is published in the lease (BackendData)'
    },
    PostStartupCommand: { rule, default: 'none', meaning: 'run once the node holds its lease' },
    SubnetAddCommand: {
      rule,
      default: 'none',
      meaning: "run for the subnet of each other node, with that node's data"
    },
    SubnetRemoveCommand: { rule, default: 'none', meaning: 'run when that subnet has gone or has changed' },
    ShutdownCommand: { rule, default: 'none', meaning: 'run when weftd stops; flanneld does not have it' }
  },

  config: (keys: JsonObject): ExtensionConfig => {
    const named = {
      beforeLease: commandKey(keys, 'PreStartupCommand'),
      afterLease: commandKey(keys, 'PostStartupCommand'),
      peerAdded: commandKey(keys, 'SubnetAddCommand'),
      peerRemoved: commandKey(keys, 'SubnetRemoveCommand'),
      shutdown: commandKey(keys, 'ShutdownCommand')
    }
    return Object.fromEntries(Object.entries(named).filter(([, command]) => command !== undefined))
  },

  commands: (config: ExtensionConfig): Commands => ({ ...config, input: printedBy }),

  features: (): readonly Link[] => [],

  /** Devices that the commands make are theirs; `weft-gw` is known by host-gw. */
  recognises: (): Recognised | undefined => undefined,

  claims: (): readonly Claim[] => [],

  namesOurDevice: (): boolean => false,

  namesAnotherDevice: (): boolean => false,

  /** As with flannel, which does not know what the commands encapsulate. */
  mtu: ({ deviceMtu }: Node): number => deviceMtu,

  underlayMtu: ({ deviceMtu }: Node): number => deviceMtu,

  publish: ({ printed }: Omit<Node, 'subnet'>): PerFamily<Json> => (printed === undefined ? {} : { 4: printed }),

  own: (node: Node): readonly KernelObject[] => gatewayHolder(node),

  held: gatewayOf,
  heldByAll: false,

  /** No objects: what leads to a peer are commands. */
  peer: (lease: Lease): readonly KernelObject[] => {
    printedBy(lease)
    return []
  }
} satisfies Backend<ExtensionConfig>
