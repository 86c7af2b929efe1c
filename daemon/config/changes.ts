// Describes the differences between the network configuration in use and the one in the store, for a condition.
import { FAMILIES, formatIp, formatPrefix } from '../../ipam/address.ts'
import { joinPath } from './keys.ts'
import { KEYS, type NetConf } from './net-conf.ts'
import { isSecretKey } from './secrets.ts'

/**
 * One clause per difference, such as `Network is 10.244.0.0/16 here and 10.245.0.0/16 there`; empty when the two are
 * equivalent.
 */
export function configurationChanges(inUse: NetConf, inStore: NetConf): readonly string[] {
  const [here, there] = [entriesOf(inUse), entriesOf(inStore)]
  const both = new Map([...there, ...here])
  const comparable = (entry: Entry | undefined) => entry?.secret ?? entry?.shown
  const differing = new Map([...both].filter(([key]) => comparable(here.get(key)) !== comparable(there.get(key))))
  // By default the subnet length and the ends of the range follow from the network: then only the network is reported.
  const reported = [...differing].filter(([, { follows }]) => follows === undefined || !differing.has(follows))
  const shown = (entry: Entry | undefined) => entry?.shown ?? 'absent'
  return reported.map(([key, { path }]) => {
    const other = here.get(key)?.secret !== undefined && there.get(key)?.secret !== undefined ? 'another' : undefined
    return `${path} is ${shown(here.get(key))} here and ${other ?? shown(there.get(key))} there`
  })
}

/** `secret`: what is compared, where it is not shown. */
type Entry = { readonly path: string; readonly shown: string; readonly secret?: string; readonly follows?: string }

/** Keyed by path in lower case. */
function entriesOf({ families, backendType, backend }: NetConf): ReadonlyMap<string, Entry> {
  const entries: Entry[] = FAMILIES.flatMap((family) => {
    const [keys, range] = [KEYS[family], families[family]]
    if (range === undefined) return []
    const follows = keys.network.toLowerCase()
    return [
      { path: keys.network, shown: formatPrefix(range.network) },
      { path: keys.length, shown: String(range.subnetLength), follows },
      { path: keys.min, shown: formatIp(range.subnetMin), follows },
      { path: keys.max, shown: formatIp(range.subnetMax), follows }
    ]
  })
  entries.push({ path: 'Backend.Type', shown: backendType })
  for (const [name, value] of Object.entries(backend))
    if (name.toLowerCase() !== 'type' && value !== null)
      entries.push({
        path: joinPath('Backend', name),
        ...(isSecretKey(name) ? { shown: 'a secret', secret: JSON.stringify(value) } : { shown: JSON.stringify(value) })
      })
  return new Map(entries.map((entry) => [entry.path.toLowerCase(), entry]))
}
