// Prints statements of libnftables-json(5) as nft would, without counters: the rules of other programs in messages.
import { isRecord, type NftJson } from './parse-own-tables.ts'

/** Values of a set that are printed. */
const SHOWN = 8

/** One line, as in `ip saddr != 192.0.2.1 drop comment "x"`. */
export function ruleText(statements: readonly NftJson[], comment?: string): string {
  const words = statements.map(statementText)
  return [...words, ...(comment === undefined ? [] : [`comment "${comment}"`])].join(' ')
}

function statementText(statement: NftJson): string {
  const { match, vmap, jump, goto, xt, queue } = statement
  if (isRecord(match)) {
    const op = match.op === '==' || match.op === 'in' ? '' : `${match.op} `
    return `${leftText(match.left)} ${op}${valueText(match.right, isDevice(match.left))}`
  }
  if (isRecord(vmap)) return `${leftText(vmap.key)} vmap ${mapText(vmap.data, isDevice(vmap.key))}`
  if (isRecord(jump)) return `jump ${jump.target}`
  if (isRecord(goto)) return `goto ${goto.target}`
  if (isRecord(queue)) return `queue num ${queue.first}${queue.last === queue.first ? '' : `-${queue.last}`}`
  if (isRecord(xt)) return `xt ${xt.type} "${xt.name}"`
  return Object.keys(statement)[0] ?? ''
}

/** meta keys that nft prints without `meta`. */
const bare = /^(iif|oif|iifname|oifname|iifgroup|oifgroup|iiftype|oiftype)$/

function leftText(left: unknown): string {
  if (!isRecord(left)) return '?'
  const { meta, ct, payload, concat, '&': masked } = left
  if (isRecord(meta)) return bare.test(String(meta.key)) ? String(meta.key) : `meta ${meta.key}`
  if (isRecord(ct)) return `ct ${ct.key}`
  if (isRecord(payload)) return `${payload.protocol} ${payload.field}`
  if (Array.isArray(concat)) return concat.map(leftText).join(' . ')
  if (Array.isArray(masked)) return `${leftText(masked[0])} & 0x${masked[1]}`
  return Object.keys(left)[0] ?? '?'
}

const isDevice = (left: unknown): boolean =>
  isRecord(left) && isRecord(left.meta) && /(name|kind)$/.test(String(left.meta.key))

function valueText(value: unknown, quoted: boolean): string {
  if (Array.isArray(value)) return value.map((one) => valueText(one, quoted)).join(',')
  if (!isRecord(value)) return quoted && !String(value).startsWith('@') ? `"${value}"` : String(value)
  const { prefix, range, set } = value
  if (isRecord(prefix)) return `${prefix.addr}/${prefix.len}`
  if (Array.isArray(range)) return range.map((end) => valueText(end, quoted)).join('-')
  if (Array.isArray(set)) return braces(set.map((one) => valueText(one, quoted)))
  return '?'
}

function mapText(data: unknown, quoted: boolean): string {
  if (!isRecord(data) || !Array.isArray(data.set)) return String(data)
  return braces(
    data.set.map((pair) => {
      const [key, verdict] = Array.isArray(pair) ? pair : []
      return `${valueText(key, quoted)} : ${isRecord(verdict) ? statementText(verdict) : '?'}`
    })
  )
}

const braces = (texts: readonly string[]): string =>
  `{ ${[...texts.slice(0, SHOWN), ...(texts.length > SHOWN ? ['…'] : [])].join(', ')} }`
