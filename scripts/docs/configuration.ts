// Tables for docs/configuration.md: weftd's flags and variables, the network configuration, the backends' keys,
// weftctl's commands.

import type { Backend } from '../../daemon/backend/backend.ts'
import { BACKENDS } from '../../daemon/backend/registry.ts'
import { variableOf } from '../../daemon/cli/flag-parser.ts'
import { FLAGS, GROUPS, PREFIXES } from '../../daemon/cli/flag-table.ts'
import { netConfSchema } from '../../daemon/config/net-conf.schema.ts'
import { usageOf } from '../../daemon/ctl/command.ts'
import { COMMANDS, LASTING } from '../../daemon/ctl/run.ts'
import { code, table } from './markdown.ts'

/** flannel's keys: default and meaning. The rule for the value is in the schema. */
export const NETWORK: Readonly<Record<keyof typeof netConfSchema.properties, readonly [usual: string, means: string]>> =
  {
    EnableIPv4: ['true', 'pods get IPv4 addresses'],
    EnableIPv6: ['false', 'pods get IPv6 addresses'],
    EnableNFTables: [
      'false',
      'ignored: --firewall decides; host ports and rules of single pods are always in nftables'
    ],
    Network: ['', 'the whole pod network; required with EnableIPv4'],
    SubnetLen: ['24, or 2 more than that of Network', "prefix length of each node's subnet"],
    SubnetMin: ['the second subnet of Network', 'the first subnet that may be leased'],
    SubnetMax: ['the last subnet of Network', 'the last such subnet'],
    IPv6Network: ['', 'the whole pod network; required with EnableIPv6'],
    IPv6SubnetLen: ['64, or 2 more than that of IPv6Network', "prefix length of each node's subnet"],
    IPv6SubnetMin: ['the second subnet of IPv6Network', 'the first subnet that may be leased'],
    IPv6SubnetMax: ['the last subnet of IPv6Network', 'the last such subnet'],
    Backend: ['', 'how packets reach other nodes: an object with `Type` and the keys of that backend']
  }

/** The keys beside `Type` of these backends. */
export const backendTable = (backends: readonly Pick<Backend<unknown>, 'type' | 'keys'>[]): string =>
  table([
    ['Type', 'key', 'value', 'default', 'meaning'],
    ...backends.flatMap(({ type, keys }) =>
      Object.entries(keys).map(([key, { rule, default: usual, meaning }]) => [
        code(type),
        code(key),
        rule,
        usual,
        meaning
      ])
    )
  ])

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
        return `### ${heading}\n\n${table([['flag', 'variable', 'value', 'default', 'meaning'], ...rows])}`
      })
      .join('\n\n'),
  network: () =>
    table([
      ['key', 'value', 'default', 'meaning'],
      ...Object.entries(netConfSchema.properties).map(([key, { description }]) => {
        const [usual, means] = NETWORK[key as keyof typeof NETWORK]
        return [code(key), description, usual, means]
      })
    ]),
  backends: () => backendTable(BACKENDS),
  weftctl: () =>
    table([
      ['command', 'what it shows', 'exit status'],
      ...Object.entries({ ...COMMANDS, ...LASTING }).map(([name, command]) => [
        code(`weftctl ${usageOf(name, command)}`),
        command.about,
        command.exits
      ])
    ])
}
