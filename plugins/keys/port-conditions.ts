// portmap's `conditionsV4` and `conditionsV6`: further matches on packets to a host port, in the syntax of iptables or
// nft.
import { type Family, type Prefix, parseIp, parsePrefix, width } from '../../ipam/address.ts'
import type { PortCondition } from '../attachment.ts'
import { entries, type Field, FieldError, required, text } from '../cni/field.ts'

const KNOWN =
  'must be one of the conditions that Weft supports: -s, -d or -i of iptables, with or without "!" before it, or saddr, daddr or iifname of nft, with or without "!=". Name the address in hostIP of the mapping, or filter in a chain of your own'

/** Options of iptables(8) and keywords of nft(8) by what they match. */
const iptables: ReadonlyMap<string, PortCondition['kind']> = new Map([
  ...['-s', '--source', '--src'].map((word) => [word, 'source'] as const),
  ...['-d', '--destination', '--dst'].map((word) => [word, 'destination'] as const),
  ...['-i', '--in-interface'].map((word) => [word, 'device'] as const)
])
const nft: ReadonlyMap<string, PortCondition['kind']> = new Map([
  ['saddr', 'source'],
  ['daddr', 'destination']
])

/** More would not fit into a chain's name, from which a restarted weftd reads them. */
const MOST = 4

/** As in the reference, the first word decides which of the two syntaxes it is. Errors: FieldError. */
export function portConditions(list: Field, family: Family): readonly PortCondition[] {
  const words = entries(list).flatMap(split)
  const found: PortCondition[] = []
  const isIptables = /^[-!]/.test(words[0]?.value ?? '-')
  for (let at = 0; at < words.length; ) {
    const { condition, length } = (isIptables ? ofIptables : ofNft)(words.slice(at), family)
    found.push(condition)
    at += length
  }
  const values = found.reduce((sum, each) => sum + (each.kind === 'device' ? 1 : each.prefixes.length), 0)
  if (values > MOST) throw new FieldError(list, `must have at most ${MOST} addresses and devices`)
  return found
}

type Word = { readonly path: string; readonly value: string }
type Read = { readonly condition: PortCondition; readonly length: number }

/** The reference joins the entries with spaces, so one of them may be several words. */
function split(entry: Field): readonly Word[] {
  const written = required(text(entry), entry, 'a string')
  return written
    .split(/\s+/)
    .filter((word) => word !== '')
    .map((value) => ({ path: entry.path, value }))
}

function ofIptables(words: readonly Word[], family: Family): Read {
  const not = words[0]?.value === '!'
  const [option, value] = not ? words.slice(1) : words
  const kind = iptables.get(option?.value ?? '')
  if (option === undefined || kind === undefined) throw new FieldError(option ?? (words[0] as Word), KNOWN)
  return { condition: condition(kind, following(option, value), not, family), length: not ? 3 : 2 }
}

function ofNft(words: readonly Word[], family: Family): Read {
  const [first, second] = words as readonly [Word, ...Word[]]
  const isOfFamily = first.value === (family === 4 ? 'ip' : 'ip6')
  const kind = first.value === 'iifname' ? 'device' : isOfFamily ? nft.get(second?.value ?? '') : undefined
  if (kind === undefined) throw new FieldError(isOfFamily && second ? second : first, KNOWN)
  const length = kind === 'device' ? 1 : 2
  const operator = words[length]
  const isWritten = operator?.value === '!=' || operator?.value === '=='
  const value = following(words[length - 1] as Word, words[length + (isWritten ? 1 : 0)])
  const plain = { ...value, value: value.value.replaceAll('"', '') }
  return {
    condition: condition(kind, plain, operator?.value === '!=', family),
    length: length + (isWritten ? 2 : 1)
  }
}

function following(option: Word, value: Word | undefined): Word {
  if (value === undefined) throw new FieldError(option, 'must be followed by its value')
  return value
}

function condition(kind: PortCondition['kind'], value: Word, not: boolean, family: Family): PortCondition {
  const sense = not ? { not: true as const } : {}
  if (kind === 'device') return { kind, name: deviceName(value), ...sense }
  const parts = value.value.split(',')
  if (not && parts.length > 1) throw new FieldError(value, 'must be a single prefix after "!", as in iptables')
  return { kind, prefixes: parts.map((part) => prefixIn({ ...value, value: part }, family)), ...sense }
}

function prefixIn(word: Word, family: Family): Prefix {
  const ip = parseIp(word.value)
  const found = ip === undefined ? parsePrefix(word.value) : { ip, length: width(ip.family) }
  if (found?.ip.family !== family) throw new FieldError(word, `must be an IPv${family} address or prefix`)
  return found
}

/** `eth+` (iptables) and `eth*` (nft) match every device whose name begins with `eth`. */
function deviceName(word: Word): string {
  if (!/^[\w.@-]{1,14}[\w.@+*-]?$/.test(word.value))
    throw new FieldError(word, 'must be the name of a device, or its beginning followed by + or *')
  return word.value.replace('+', '*')
}
