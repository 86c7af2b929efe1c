// Transmit checksum offload of a tunnel's device, turned off where packets are lost with it and pass without it; and on
// again once they pass with it. The setting is part of the desired state; the device's alias says that it is ours.
import type { Log } from '../base/log.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { type Link, linkNamed } from '../state/object.ts'
import { aliasOf, type Broken, type Cured, curedOf } from './checksum-alias.ts'
import { LOSSES } from './translated.ts'
import { DAY } from './translated-schedule.ts'

export type ChecksumCuresDeps = {
  readonly reconciler: Pick<Reconciler, 'want' | 'observed'>
  readonly log: Log
  /** `undefined`: there is no such device, or it has no such setting. */
  readonly read: (device: string) => Promise<boolean | undefined>
  /** Adds a line to `weftctl changes`. */
  readonly changed: (text: string) => void
  /** Tenths of a second. */
  readonly now: () => number
}

/** Asks a peer; whether it answers. */
export type Ask = { readonly untranslated: () => Promise<boolean>; readonly translated: () => Promise<boolean> }

/** `off-already`: by somebody else, whose setting stays. `refused`: by the kernel. */
export type Tried = 'cured' | 'unhelped' | 'off-already' | 'refused'

export type Cure = Cured & { readonly device: string; readonly retryAt: number }

const ownerOf = (device: string): string => `checksum offload of ${device}`

/** Days until offload is tried again, after `before` days; growing, so that a fault that stays costs ever less. */
export const nextPause = (before: number | undefined): number => Math.min(32, (before ?? 0.5) * 2)

export class ChecksumCures {
  readonly #deps: ChecksumCuresDeps
  readonly #cures = new Map<string, Cure>()
  /** Days of the last pause, by device. */
  readonly #pauses = new Map<string, number>()

  constructor(deps: ChecksumCuresDeps) {
    this.#deps = deps
  }

  list(): readonly Cure[] {
    return [...this.#cures.values()]
  }

  /** What an earlier weftd left on our device. */
  async adopt(device: string): Promise<void> {
    if (this.#cures.has(device)) return
    const cured = curedOf(linkNamed(this.#deps.reconciler.observed, device)?.alias)
    // It was stopped before it knew whether that helps.
    if (cured?.isProven === false) await this.#restore(device)
    if (cured?.isProven === true) await this.#keep(device, cured)
  }

  /** All devices but these are ours no longer. */
  async only(devices: readonly string[]): Promise<void> {
    for (const device of this.#cures.keys()) {
      if (devices.includes(device)) continue
      this.#cures.delete(device)
      await this.#deps.reconciler.want(ownerOf(device), [])
    }
  }

  /** Turns it off for as long as that helps. */
  async try(device: string, about: Pick<Cured, 'broken' | 'key'>, ask: Ask): Promise<Tried> {
    if (this.#cures.has(device)) return 'unhelped'
    const isOn = await this.#deps.read(device)
    if (isOn !== true) return isOn === undefined ? 'refused' : 'off-already'
    const tried = { ...about, isProven: false }
    let helps = false
    try {
      if (!(await this.#set(device, false, tried))) return 'refused'
      helps = await isAnswered(ask, about.broken)
    } finally {
      if (!helps) await this.#restore(device)
    }
    if (!helps) return 'unhelped'
    await this.#keep(device, { ...about, isProven: true })
    this.#deps.changed(`turned transmit checksum offload of ${device} off`)
    return 'cured'
  }

  /** Whether a cure is due to be tried without. */
  isDue({ retryAt }: Cure): boolean {
    return retryAt <= this.#deps.now()
  }

  /**
   * Turns it on again if packets pass with it. What pods send is lost meanwhile where they do not: as long as one answer
   * may take.
   */
  async retry(cure: Cure, ask: Ask): Promise<void> {
    const { device, broken } = cure
    // The peer is away: nothing can be found out now.
    if (!(await ask.untranslated())) return void this.#cures.set(device, { ...cure, retryAt: this.#laterBy(1) })
    let passes = false
    try {
      passes = (await this.#set(device, true, cure)) && (await passesAll(ask, broken))
    } finally {
      if (!passes) await this.#keep(device, cure)
    }
    if (!passes) return
    this.#cures.delete(device)
    await this.#restore(device)
    this.#deps.changed(`turned transmit checksum offload of ${device} on again`)
    this.#deps.log.info({ device }, 'packets pass with transmit checksum offload: it is turned on again')
  }

  async #keep(device: string, { broken, key, isProven }: Cured): Promise<void> {
    const pause = nextPause(this.#pauses.get(device))
    this.#pauses.set(device, pause)
    const cured = { broken, key, isProven }
    this.#cures.set(device, { ...cured, device, retryAt: this.#laterBy(pause) })
    await this.#set(device, false, cured)
  }

  #laterBy(days: number): number {
    return this.#deps.now() + days * DAY
  }

  async #restore(device: string): Promise<void> {
    await this.#set(device, true, undefined)
    await this.#deps.reconciler.want(ownerOf(device), [])
  }

  /** Whether the kernel has taken it. An alias of somebody else's stays: then a restarted weftd takes it for theirs. */
  async #set(device: string, isOn: boolean, cured: Cured | undefined): Promise<boolean> {
    const { reconciler } = this.#deps
    const have = linkNamed(reconciler.observed, device)?.alias ?? ''
    const because = 'checksum offload breaks packets to other nodes'
    const alias: Link = { kind: 'link', name: device, alias: cured === undefined ? '' : aliasOf(cured), because }
    const outcomes = await reconciler.want(ownerOf(device), [
      ...(have === '' || curedOf(have) !== undefined ? [alias] : []),
      { kind: 'offload', device, transmitChecksum: isOn, because }
    ])
    return outcomes.every(({ error }) => error === undefined)
  }
}

const isAnswered = (ask: Ask, broken: Broken): Promise<boolean> =>
  broken === 'all' ? ask.untranslated() : ask.translated()

/** Asks several times, up to the first packet that is lost. */
async function passesAll(ask: Ask, broken: Broken): Promise<boolean> {
  for (let passed = 0; passed < LOSSES; passed++) if (!(await isAnswered(ask, broken))) return false
  return true
}
