// Packets whose source address or port this node translates: which peer is asked with one when, and what follows from
// the answers. Checksum offload on a tunnel can break those alone: a rule that matches by mark translates the outer
// packet, too, which keeps the mark (kubernetes#88986, flannel#1279); or all of UDP and TCP, while ICMP, whose checksum is
// never offloaded, passes (flannel#2152). Times are in tenths of a second.
import { phase } from './probe-schedule.ts'

export const DAY = 864_000
/** Peers that become whole together are asked so far apart, on average: 5,000 of them within six hours. */
const APART = 40
/** After a loss that is not proven yet. */
const AGAIN = 50
/** So many translated packets in a row must be lost. */
export const LOSSES = 3

/** An attempt: untranslated packets to the same port before and after the translated one. */
export type Attempt = { readonly before: boolean; readonly translated: boolean; readonly after: boolean }

/** `translated-lost`: those alone. `unknown`: the port is not answered at all, or the way failed meanwhile. */
export type TranslatedVerdict = 'whole' | 'translated-lost' | 'unknown'

/** From the last attempts, oldest first. */
export function judgeTranslated(attempts: readonly Attempt[]): TranslatedVerdict {
  if (attempts.at(-1)?.translated === true) return 'whole'
  const last = attempts.slice(-LOSSES)
  const isProof = ({ before, translated, after }: Attempt) => before && after && !translated
  return last.length === LOSSES && last.every(isProof) ? 'translated-lost' : 'unknown'
}

/** Nothing was answered: a firewall drops the port, or what is offloaded is broken for untranslated packets, too. */
export function areSilent(attempts: readonly Attempt[]): boolean {
  const last = attempts.slice(-LOSSES)
  const isSilent = ({ before, translated, after }: Attempt) => !before && !after && !translated
  return last.length === LOSSES && last.every(isSilent)
}

/** What is lost while checksums are offloaded: translated packets alone, or all but ICMP. */
export type Broken = 'translated' | 'all'

/** Offload that weftd turned off, for packets to the node of the lease `key`. */
export type Cured = { readonly broken: Broken; readonly key: string; readonly isProven: boolean }

const MARKS: readonly (readonly [mark: string, Pick<Cured, 'broken' | 'isProven'>])[] = (
  ['translated', 'all'] as const
).flatMap((broken) => [
  [`checksum-offload-off-by-weftd:${broken}`, { broken, isProven: true }],
  [`checksum-offload-tried-off-by-weftd:${broken}`, { broken, isProven: false }]
])

/** The alias of such a device: the kernel keeps it while weftd is restarted, and loses it with the setting. */
export function aliasOf({ broken, key, isProven }: Cured): string {
  const [mark = ''] = MARKS.find(([, each]) => each.broken === broken && each.isProven === isProven) ?? []
  return `${mark} ${key}`
}

/** `undefined`: an alias of somebody else, or none. */
export function curedOf(alias: string | undefined): Cured | undefined {
  const [mark, key, ...more] = (alias ?? '').split(' ')
  const found = MARKS.find(([each]) => each === mark)
  return found === undefined || !key || more.length > 0 ? undefined : { ...found[1], key }
}

/**
 * When each peer is asked next, and whether its last answer was whole: a number each, as nearly all of thousands of peers
 * need no more.
 */
export class NextQuestions {
  readonly #next = new Map<string, number>()

  set(key: string, dueAt: number, isWhole: boolean): void {
    this.#next.set(key, 2 * dueAt + Number(isWhole))
  }

  dueAt(key: string): number | undefined {
    const next = this.#next.get(key)
    return next === undefined ? undefined : next >> 1
  }

  /** When it was asked last, if its answer was whole. */
  wholeAt(key: string): number | undefined {
    const next = this.#next.get(key) ?? 0
    return (next & 1) === 1 ? (next >> 1) - DAY : undefined
  }

  /** Forgets peers whose leases are gone. */
  keep(leases: ReadonlyMap<string, unknown>): void {
    for (const key of this.#next.keys()) if (!leases.has(key)) this.#next.delete(key)
  }
}

/** Days until offload is tried again, after `before` days; growing, so that a fault that stays costs ever less. */
export const nextPause = (before: number | undefined): number => Math.min(32, (before ?? 0.5) * 2)

/** When a peer is asked first that became whole now. `pair`: another number for each peer. */
export const firstDue = (peers: number, pair: number, now: number): number =>
  now + phase(pair, Math.min(DAY, peers * APART))

/** When it is asked again. `losses`: translated packets in a row that alone were lost. */
export const nextDue = (askedAt: number, losses: number): number =>
  askedAt + (losses > 0 && losses < LOSSES ? AGAIN : DAY)
