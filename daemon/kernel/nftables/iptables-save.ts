// Parses the output of iptables-save for state/foreign-chain.ts: of iptables-legacy, which nftables does not show.
import { type Family, hostPrefix, type Prefix, parseIp, parsePrefix } from '../../../ipam/address.ts'
import type {
  ForeignChain,
  ForeignCondition,
  ForeignRule,
  ForeignTable,
  ForeignVerdict
} from '../../state/foreign-chain.ts'
import { acceptOf, consumingTarget, statesCondition } from './parse-foreign-tables.ts'
import { COMMENT } from './parse-own-tables.ts'

/**
 * Tables from the output of iptables-save (family 4) or ip6tables-save (family 6). Lines that can't be parsed are rules
 * without a verdict.
 */
export function savedTables(output: string, family: Family): readonly ForeignTable[] {
  const tables: ForeignTable[] = []
  let chains = new Map<string, ForeignChain & { readonly rules: ForeignRule[] }>()
  for (const line of output.split('\n')) {
    if (line.startsWith('*')) {
      chains = new Map()
      tables.push({ tool: 'iptables-legacy', family: family === 4 ? 'ip' : 'ip6', table: line.slice(1).trim(), chains })
    } else if (line.startsWith(':')) {
      const [name = '', policy] = line.slice(1).split(' ')
      const hooked = name === 'FORWARD' ? { policy: policy === 'DROP' ? ('drop' as const) : ('accept' as const) } : {}
      chains.set(name, { name, ...hooked, rules: [] })
    } else if (line.startsWith('-A ')) {
      const [, chain = '', ...words] = wordsOf(line)
      chains.get(chain)?.rules.push(savedRule(words, line))
    }
  }
  return tables
}

/** Words as iptables-save quotes them: blanks only inside double quotes, with backslashes before `"` and `\`. */
function wordsOf(line: string): readonly string[] {
  return [...line.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    ([, quoted, plain = '']) => quoted?.replaceAll(/\\(.)/g, '$1') ?? plain
  )
}

type Reading = {
  readonly conditions: ForeignCondition[]
  comment: string | undefined
  verdict: ForeignVerdict | undefined
  /** The address matches, of which Weft's accepts consist; `undefined` for any other condition. */
  readonly matches: (ForeignRule['ours'] | undefined)[]
}

function savedRule(words: readonly string[], text: string): ForeignRule {
  const reading: Reading = { conditions: [], comment: undefined, verdict: undefined, matches: [] }
  for (let at = 0; at < words.length; ) {
    const negated = words[at] === '!'
    const option = words[negated ? at + 1 : at] ?? ''
    const from = at + (negated ? 2 : 1)
    let to = from
    while (to < words.length && words[to] !== '!' && !words[to]?.startsWith('-')) to++
    // A target's options follow it and are no conditions.
    if (readOption(reading, option, words.slice(from, to), negated)) {
      if (reading.verdict?.kind === 'queue') reading.verdict = queueVerdict(words.slice(from))
      break
    }
    at = to
  }
  const { conditions, verdict, comment } = reading
  const own = comment === COMMENT ? ownPart(reading) : {}
  return { branches: verdict === undefined ? [] : [{ conditions, verdict }], text, ...own }
}

/** See ownPart in parse-foreign-tables.ts. */
function ownPart({ verdict, matches }: Reading): Pick<ForeignRule, 'ours' | 'oursTo'> {
  if (verdict?.kind === 'jump' && matches.length === 0) return { oursTo: verdict.chain }
  const ours = verdict?.kind === 'accept' || verdict?.kind === 'return' ? acceptOf(matches) : undefined
  return ours === undefined ? {} : { ours: verdict?.kind === 'return' ? { ...ours, verdict: 'return' } : ours }
}

/** Options that name neither addresses nor devices; see extensionCondition in parse-foreign-tables.ts. */
const broadOptions = /^(-p|--ctstatus|--ctdir|--physdev-is-.*|--src-type|--dst-type|--limit-iface-.*|--dir|--pol)$/
/** Devices by name, also those of a bridge's port. */
const interfaceOptions: Readonly<Record<string, 'in' | 'out'>> = {
  '-i': 'in',
  '-o': 'out',
  '--physdev-in': 'in',
  '--physdev-out': 'out'
}
/** Matches that say nothing without an option of theirs; of others the name alone may be a condition (`-m socket`). */
const optionMatches = /^(comment|tcp|udp|udplite|sctp|dccp|icmp|icmp6|conntrack|state|physdev|addrtype|policy)$/

/** Reads one option with its values; `true` when it was the target. */
function readOption(reading: Reading, option: string, values: readonly string[], negated: boolean): boolean {
  const value = values[0] ?? ''
  if (option === '-j' || option === '-g') {
    reading.verdict = targetOf(option, value)
    return true
  }
  if (option === '-m') {
    if (!optionMatches.test(value)) reading.conditions.push({ kind: 'deliberate' })
    return false
  }
  if (option === '--comment') {
    reading.comment = value
    return false
  }
  const condition = conditionOf(option, value, negated)
  reading.conditions.push(condition)
  const isAddress = condition.kind === 'address' && condition.side !== undefined && !negated
  const [prefix] = condition.kind === 'address' ? condition.prefixes : []
  reading.matches.push(isAddress && prefix !== undefined ? { match: condition.side, prefix } : undefined)
  return false
}

function conditionOf(option: string, value: string, negated: boolean): ForeignCondition {
  if (option === '-s' || option === '-d') {
    const prefix = prefixOf(value)
    // Addresses under a mask that is no prefix may be those of pods.
    if (prefix === undefined) return { kind: 'deliberate' }
    return { kind: 'address', prefixes: [prefix], negated, side: option === '-s' ? 'source' : 'destination' }
  }
  const side = interfaceOptions[option]
  if (side !== undefined) return { kind: 'interface', names: [value.replace(/\+$/, '*')], negated, side }
  if (option === '--ctstate' || option === '--state') return statesCondition(value.split(','), negated)
  return { kind: broadOptions.test(option) ? 'other' : 'deliberate' }
}

/** NFQUEUE and its options: its numbers, where packets are dropped while no program listens. */
function queueVerdict([target, ...options]: readonly string[]): ForeignVerdict {
  if (target !== 'NFQUEUE' || options.includes('--queue-bypass')) return { kind: 'queue' }
  const textOf = (option: string) => (options.includes(option) ? options[options.indexOf(option) + 1] : undefined)
  const [first = 0, last = first] = (textOf('--queue-balance') ?? textOf('--queue-num') ?? '0').split(':').map(Number)
  return Number.isInteger(first) && Number.isInteger(last)
    ? { kind: 'queue', numbers: [first, last] }
    : { kind: 'queue' }
}

function prefixOf(text: string): Prefix | undefined {
  const ip = parseIp(text)
  return ip === undefined ? parsePrefix(text) : hostPrefix(ip)
}

/** Targets after which the packet continues: marks, logging, TCP MSS. */
const goesOn =
  /^(LOG|NFLOG|ULOG|MARK|CONNMARK|SECMARK|CONNSECMARK|TCPMSS|TOS|DSCP|TTL|HL|CT|NOTRACK|TRACE|CLASSIFY|CHECKSUM|SET|RATEEST|AUDIT|TEE|IDLETIMER|LED|HMARK|ECN|TCPOPTSTRIP)$/

function targetOf(option: string, target: string): ForeignVerdict | undefined {
  if (option === '-g') return { kind: 'goto', chain: target }
  if (target === 'ACCEPT') return { kind: 'accept' }
  if (target === 'DROP' || target === 'REJECT') return { kind: 'drop' }
  if (target === 'RETURN') return { kind: 'return' }
  if (consumingTarget.test(target)) return { kind: 'queue' }
  return goesOn.test(target) ? undefined : { kind: 'jump', chain: target }
}
