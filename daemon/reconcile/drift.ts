// Tracks other programs' changes of Weft's objects: who, how often, how long until the repair. Slows down when a
// program keeps undoing repairs.
import type { Change } from '../state/difference.ts'
import type { Sender } from '../state/kernel.ts'
import { deviceOf, differingFields, type KernelObject, type Key } from '../state/object.ts'
import { textOf } from '../state/text.ts'

/**
 * From this many repairs of one object within the window on, each waits longer, up to the last value (milliseconds).
 */
const REPEATED = { repairs: 5, window: 10_000, firstPause: 500, mostPause: 10_000 } as const

export type DriftReport = {
  readonly object: string
  /** The kind of object, for the counter. */
  readonly kind: string
  /** What the other program did: `removed`, `changed (mac)`, `added`. */
  readonly what: string
  readonly by: Sender | undefined
  /** Why there is no `by`. */
  readonly unnamed: string | undefined
  /** The device to look at, where the object has one. */
  readonly device: string | undefined
  /** Milliseconds from the notification to the kernel's acknowledgement. */
  readonly afterMs: number
  readonly because: string | undefined
  /** Repairs of this object within the window. */
  readonly times: number
  readonly isRepeated: boolean
}

type Trace = { at: number; by: Sender | undefined; what: string; repairs: number[]; heldUntil: number }

export class Drift {
  readonly #traces = new Map<Key, Trace>()
  #forgotten = 0
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /**
   * An observation differs from the desired state. Returns for how many milliseconds the repair has to wait: 0 unless
   * repairs are being undone.
   */
  seen(key: Key, change: Change, by: Sender | undefined): number {
    const now = this.#now()
    const trace = this.#traces.get(key) ?? { at: now, by, what: '', repairs: [], heldUntil: 0 }
    if (trace.what === '') Object.assign(trace, { at: now, by, what: happened(change) })
    else if (by !== undefined) trace.by = by
    this.#traces.set(key, trace)
    return Math.max(0, trace.heldUntil - now)
  }

  /** It was as desired when we looked again: nobody's change was repaired. */
  settled(key: Key): void {
    const trace = this.#traces.get(key)
    if (trace !== undefined) trace.what = ''
  }

  /** The object is as desired again; returns a report if that was a repair. */
  repaired(key: Key, change: Change): DriftReport | undefined {
    const trace = this.#traces.get(key)
    if (trace === undefined || trace.what === '') return undefined
    const now = this.#now()
    trace.repairs = [...trace.repairs.filter((at) => now - at < REPEATED.window), now]
    const over = trace.repairs.length - REPEATED.repairs
    if (over >= 0) trace.heldUntil = now + Math.min(REPEATED.firstPause * 2 ** over, REPEATED.mostPause)
    const report: DriftReport = {
      object: textOf(change.object),
      kind: change.object.kind,
      what: trace.what,
      by: trace.by,
      unnamed: trace.by === undefined ? unnamed(change.object) : undefined,
      device: change.object.kind === 'link' ? change.object.name : deviceOf(change.object),
      afterMs: now - trace.at,
      because: change.object.because,
      times: trace.repairs.length,
      isRepeated: over >= 0
    }
    trace.what = ''
    this.#forgetOld(now)
    return report
  }

  #forgetOld(now: number): void {
    // A search through all of them, so not at each of the thousands of repairs after a device was created again.
    if (this.#traces.size < 1000 || now - this.#forgotten < REPEATED.window) return
    this.#forgotten = now
    for (const [key, trace] of this.#traces)
      if (trace.what === '' && trace.repairs.every((at) => now - at > REPEATED.window)) this.#traces.delete(key)
  }
}

function happened(change: Change): string {
  if (change.do === 'remove') return 'added'
  if (change.instead === undefined) return 'removed'
  return `changed (${differingFields(change.object, change.instead).join(', ')})`
}

/** Notifications of these have port id 0, whoever changed them (seen on 6.18); the others name their sender. */
const NEVER_NAMED: Readonly<Partial<Record<KernelObject['kind'], string>>> = {
  link: 'links',
  fdb: 'FDB entries',
  vlans: 'VLANs',
  sysctl: 'settings',
  offload: 'settings of devices'
}

function unnamed(object: KernelObject): string {
  const isAddress6 = object.kind === 'address' && object.prefix.ip.family === 6
  const what = isAddress6 ? 'IPv6 addresses' : NEVER_NAMED[object.kind]
  return what === undefined
    ? 'it had ended before weftd could read its name, or the kernel did it when a link changed'
    : `the kernel does not say who changes ${what}`
}
