// Parses the output of iptables-save for state/foreign-chain.ts: of iptables-legacy, which nftables does not show.
import { type Family, hostPrefix, type Prefix, parseIp, parsePrefix } from '../../../ipam/address.ts'
import type {
  ForeignChain,
  ForeignCondition,
  ForeignRule,
  ForeignTable,
  ForeignVerdict
} from '../../state/foreign-chain.ts'
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
  /** The address match, as long as it is the only condition. */
  only: ForeignRule['ours'] | 'none' | 'more'
}

function savedRule(words: readonly string[], text: string): ForeignRule {
  const reading: Reading = { conditions: [], comment: undefined, verdict: undefined, only: 'none' }
  for (let at = 0; at < words.length; ) {
    const negated = words[at] === '!'
    const option = words[negated ? at + 1 : at] ?? ''
    const from = at + (negated ? 2 : 1)
    let to = from
    while (to < words.length && words[to] !== '!' && !words[to]?.startsWith('-')) to++
    // A target's options follow it and are no conditions.
    if (readOption(reading, option, words.slice(from, to), negated)) break
    at = to
  }
  const { conditions, verdict, comment, only } = reading
  const ours = comment === COMMENT && verdict?.kind === 'accept' && typeof only === 'object' ? { ours: only } : {}
  return { branches: verdict === undefined ? [] : [{ conditions, verdict }], text, ...ours }
}

/** Matches that are not narrow; see extensionCondition in parse-foreign-tables.ts. */
const broadOptions =
  /^(-i|-o|-p|--ctstate|--state|--ctstatus|--ctdir|--physdev-.*|--src-type|--dst-type|--limit-iface-.*|--dir|--pol)$/
const broken = /^(INVALID|UNTRACKED)(,(INVALID|UNTRACKED))*$/

/** Reads one option with its values; `true` when it was the target. */
function readOption(reading: Reading, option: string, values: readonly string[], negated: boolean): boolean {
  const value = values[0] ?? ''
  if (option === '-j' || option === '-g') {
    reading.verdict = targetOf(option, value)
    return true
  }
  if (option === '-m') return false
  if (option === '--comment') {
    reading.comment = value
    return false
  }
  const prefix = option === '-s' || option === '-d' ? prefixOf(value) : undefined
  if (prefix) {
    reading.only =
      reading.only === 'none' && !negated ? { match: option === '-s' ? 'source' : 'destination', prefix } : 'more'
    reading.conditions.push({ kind: 'address', prefixes: [prefix], negated })
    return false
  }
  reading.only = 'more'
  const states = option === '--ctstate' || option === '--state'
  const isBroken = states && !negated && broken.test(value)
  const broad = broadOptions.test(option) || option === '-s' || option === '-d'
  reading.conditions.push({ kind: broad && !isBroken ? 'other' : 'deliberate' })
  return false
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
  if (target === 'NFQUEUE' || target === 'QUEUE') return { kind: 'queue' }
  return goesOn.test(target) ? undefined : { kind: 'jump', chain: target }
}
