// What docs/configuration.md prints: weftd's flags and variables, the network configuration, the backends' keys, weftctl's commands.

import { variableOf } from '../../daemon/cli/flag-parser.ts'
import { FLAGS, GROUPS, PREFIXES } from '../../daemon/cli/flag-table.ts'
import { netConfSchema } from '../../daemon/config/net-conf.schema.ts'
import { usageOf } from '../../daemon/ctl/command.ts'
import { COMMANDS } from '../../daemon/ctl/run.ts'
import { code, table } from './markdown.ts'

/** flannel's keys: default and meaning. What they must be is in the schema. */
export const NETWORK: Readonly<Record<keyof typeof netConfSchema.properties, readonly [usual: string, means: string]>> =
  {
    EnableIPv4: ['true', 'pods get IPv4 addresses'],
    EnableIPv6: ['false', 'pods get IPv6 addresses'],
    EnableNFTables: [
      'false',
      'read and ignored: Weft always uses nftables of its own, and answers iptables where others use it'
    ],
    Network: ['', 'the whole pod network; needed with EnableIPv4'],
    SubnetLen: ['24, or 2 more than that of Network', "prefix length of each node's subnet"],
    SubnetMin: ['the second subnet of Network', 'the first subnet that may be leased'],
    SubnetMax: ['the last subnet of Network', 'the last one'],
    IPv6Network: ['', 'the whole pod network; needed with EnableIPv6'],
    IPv6SubnetLen: ['64, or 2 more than that of IPv6Network', "prefix length of each node's subnet"],
    IPv6SubnetMin: ['the second subnet of IPv6Network', 'the first subnet that may be leased'],
    IPv6SubnetMax: ['the last subnet of IPv6Network', 'the last one'],
    Backend: ['', 'how packets get to other nodes: an object with `Type`, and the keys of that backend']
  }

/** Keys beside `Type`, by backend: rule, default, meaning. */
export const BACKENDS: Readonly<
  Record<string, Readonly<Record<string, readonly [rule: string, usual: string, means: string]>>>
> = {
  vxlan: {
    VNI: ['1 to 16777215', '1', 'network identifier; names the device `weft.VNI`'],
    Port: ['0 to 65535', '8472', "outer UDP port; 0 is the default, IANA's is 4789"],
    MTU: [
      "0, or 118 (with IPv6 1350) to the link's",
      "the link's",
      'MTU of the link between the nodes, before 50 (IPv6: 70) bytes are taken off for the encapsulation'
    ],
    DirectRouting: ['true or false', 'true', 'plain routes to nodes on a link of ours; flannel has false'],
    GBP: ['true or false', 'false', 'group policy extension'],
    Learning: ['true or false', 'false', 'let the device learn addresses; not needed']
  },
  'host-gw': { MTU: ["0, or 68 (with IPv6 1280) to the link's", "the link's", 'MTU that pods get'] }
}

const ruleOf = ({ placeholder, rule }: (typeof FLAGS)[keyof typeof FLAGS]['reader']): string =>
  placeholder === '' ? 'true, false' : rule

export const blocks = {
  flags: () =>
    Object.entries(GROUPS)
      .map(([group, heading]) => {
        const members = Object.entries(FLAGS).filter(([, flag]) => flag.group === group)
        const rows = members.map(([name, flag]) => {
          const { reader, help } = flag
          const usual = 'default' in flag ? code(flag.default) : ''
          const repeatable = 'repeatable' in reader ? ' (repeatable)' : ''
          return [code(`--${name}`), code(variableOf(PREFIXES[0], name)), `${ruleOf(reader)}${repeatable}`, usual, help]
        })
        return `### ${heading}\n\n${table([['flag', 'variable', 'value', 'default', 'what it does'], ...rows])}`
      })
      .join('\n\n'),
  network: () =>
    table([
      ['key', 'value', 'default', 'what it does'],
      ...Object.entries(netConfSchema.properties).map(([key, { description }]) => {
        const [usual, means] = NETWORK[key as keyof typeof NETWORK]
        return [code(key), description, usual, means]
      })
    ]),
  backends: () =>
    table([
      ['Type', 'key', 'value', 'default', 'what it does'],
      ...Object.entries(BACKENDS).flatMap(([type, keys]) =>
        Object.entries(keys).map(([key, [rule, usual, means]]) => [code(type), code(key), rule, usual, means])
      )
    ]),
  weftctl: () =>
    table([
      ['command', 'what it tells', 'exit status'],
      ...Object.entries(COMMANDS).map(([name, command]) => [
        code(`weftctl ${usageOf(name, command)}`),
        command.about,
        command.exits
      ])
    ])
}
