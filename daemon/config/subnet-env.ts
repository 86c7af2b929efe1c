// subnet.env, which tells Docker, flannel's CNI plugin and the next start which subnet this node has: formatted byte by
// byte as flannel does, parsed leniently.
import {
  FAMILIES,
  type Family,
  formatPrefix,
  network,
  offset,
  type PerFamily,
  type Prefix,
  parsePrefix
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'

export type SubnetEnv = {
  /** The whole network of each family. */
  readonly network: PerFamily<Prefix>
  /** This node's subnet of each family, without host bits. */
  readonly subnet: PerFamily<Prefix>
  /** Bytes, for pods. */
  readonly mtu: number
  /** Whether the daemon masquerades, so that Docker and the CNI plugin need not. */
  readonly ipMasq: boolean
}

const NAMES = {
  4: { network: 'FLANNEL_NETWORK', subnet: 'FLANNEL_SUBNET' },
  6: { network: 'FLANNEL_IPV6_NETWORK', subnet: 'FLANNEL_IPV6_SUBNET' }
} as const satisfies Record<Family, object>

/** The text of the file, as flannel's WriteSubnetFile writes it: the subnet appears as its first usable address. */
export function printSubnetEnv(env: SubnetEnv): string {
  const lines = FAMILIES.flatMap((family) => {
    const [whole, own] = [env.network[family], env.subnet[family]]
    if (whole === undefined || own === undefined) return []
    return [
      `${NAMES[family].network}=${formatPrefix(network(whole))}`,
      `${NAMES[family].subnet}=${formatPrefix(gateway(own))}`
    ]
  })
  return [...lines, `FLANNEL_MTU=${env.mtu}`, `FLANNEL_IPMASQ=${env.ipMasq}`, ''].join('\n')
}

function gateway(subnet: Prefix): Prefix {
  const { ip, length } = network(subnet)
  return { ip: offset(ip, 1n) ?? ip, length }
}

/**
 * Parses a file written by printSubnetEnv, flanneld or an administrator: any order, `export`, quotes, comments, unknown
 * names; of a list of networks the first. Missing entries are left out. Errors: SUBNET_ENV_INVALID with the variable
 * and its value; `source` is the file's path.
 */
export function parseSubnetEnv(
  text: string,
  source: string
): Partial<SubnetEnv> & Pick<SubnetEnv, 'network' | 'subnet'> {
  const values = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const [, name, value] = /^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$/.exec(line) ?? []
    if (name !== undefined && value !== undefined) values.set(name, value.replace(/^(["'])(.*)\1$/, '$2'))
  }
  const read = <T>(name: string, rule: string, parse: (value: string) => T | undefined): T | undefined => {
    const value = values.get(name)
    if (value === undefined || value === '') return undefined
    const parsed = parse(value)
    if (parsed !== undefined) return parsed
    throw new WeftError(
      'SUBNET_ENV_INVALID',
      `${name} is "${value}" in ${source}; it must be ${rule}`,
      `correct the line, or delete ${source}: weftd writes a new one`
    )
  }
  const prefixes = (part: 'network' | 'subnet'): PerFamily<Prefix> => {
    const found: { [F in Family]?: Prefix } = {}
    for (const family of FAMILIES) {
      const prefix = read(NAMES[family][part], `an IPv${family} network with prefix length`, (value) => {
        const parsed = parsePrefix(value.split(',')[0]?.trim() ?? '')
        return parsed?.ip.family === family ? network(parsed) : undefined
      })
      if (prefix !== undefined) found[family] = prefix
    }
    return found
  }
  const mtu = read('FLANNEL_MTU', 'a number of bytes', (value) =>
    /^[1-9]\d{0,5}$/.test(value) ? Number(value) : undefined
  )
  const ipMasq = read('FLANNEL_IPMASQ', 'true or false', (value) =>
    /^(true|false)$/i.test(value) ? value.toLowerCase() === 'true' : undefined
  )
  return {
    network: prefixes('network'),
    subnet: prefixes('subnet'),
    ...(mtu !== undefined && { mtu }),
    ...(ipMasq !== undefined && { ipMasq })
  }
}
