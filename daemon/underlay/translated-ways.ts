// Asks every peer once a day by a packet whose source port this node's firewall translates. Where those alone are lost,
// turns transmit checksum offload of our VXLAN device off, and on again where that doesn't help.
import { formatIp, type Ip, ipBytes, perFamily } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import { nftChain } from '../firewall/chain.ts'
import { nodeMasquerades } from '../firewall/masquerade.ts'
import type { Health } from '../health/health.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Key, Link } from '../state/object.ts'
import { every } from './every.ts'
import { digestOf } from './probe-ends.ts'
import type { Prober } from './prober.ts'
import { type Attempt, judgeTranslated, translatedDue } from './translated.ts'

export type TranslatedWaysDeps = {
  readonly prober: Pick<Prober, 'look' | 'routeTo'>
  readonly peers: Pick<Peers, 'leases' | 'isOwn'>
  readonly reconciler: Pick<Reconciler, 'want' | 'observed'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly place: () => Pick<Place, 'node' | 'backend'> | undefined
  readonly log: Log
  /** Whether the peer's kernel answers a packet with this mark; it may throw where this kernel does not send it. */
  readonly ask: (question: {
    readonly source: Uint8Array
    readonly to: Uint8Array
    readonly mark: number
  }) => Promise<boolean>
  readonly offload: {
    readonly read: (device: string) => Promise<boolean>
    readonly set: (device: string, on: boolean) => Promise<void>
  }
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds between two looks. */
const EVERY = 1_000
/** Leases that are looked at in a look. */
const LOOKED_AT = 200
/** Of the packets to translate: no bit of kube-proxy's, which are 0x4000 and 0x8000. */
export const TRANSLATED_MARK = 0x10a7
const OWNER = 'translated packets'
const KEPT = 3

/**
 * Matches by the mark alone: the outer packet of a tunnel keeps it and is translated, too, as with rules of others that
 * match by mark.
 */
const translatedRule = nftChain(
  'translated_probe',
  'type nat hook postrouting priority srcnat',
  [`meta mark ${TRANSLATED_MARK} masquerade fully-random`],
  'a translated packet to each node once a day'
)

type Known = { wholeAt: number | undefined; askedAt: number; attempts: readonly Attempt[] }
type Way = { readonly key: string; readonly source: Ip; readonly to: Ip; readonly device: Link }
/** What was done for a device, and the kernel's index of the device it was done on. */
type Cure = { readonly index: number | undefined; readonly to: string; readonly hasHelped: boolean }

export class TranslatedWays {
  readonly #deps: TranslatedWaysDeps
  readonly #known = new Map<string, Known>()
  readonly #cures = new Map<string, Cure>()
  #cursor: Iterator<string> | undefined
  #hasRule = false

  constructor(deps: TranslatedWaysDeps) {
    this.#deps = deps
  }

  /** Until the signal, and rejects with it. */
  follow(signal: AbortSignal): Promise<void> {
    return every(EVERY, () => this.step(), signal)
  }

  /** Asks one peer that is due. */
  async step(): Promise<void> {
    await this.#keepOff()
    const way = this.#due()
    if (way === undefined || !(await this.#wantRule())) return
    try {
      await this.#attempt(way)
    } catch (error) {
      // The device or an address is gone, or a local firewall drops it: that says nothing about the way.
      this.#deps.log.debug({ lease: way.key, error: String(error) }, 'a translated packet was not sent')
    }
  }

  /** Where packets of pods are not masqueraded, the rule would make the kernel track connections for it alone. */
  async #wantRule(): Promise<boolean> {
    const { reconciler } = this.#deps
    const isUseful = nodeMasquerades(reconciler.observed)
    if (isUseful !== this.#hasRule) await reconciler.want(OWNER, isUseful ? [translatedRule] : [])
    this.#hasRule = isUseful
    return isUseful
  }

  #tenths(): number {
    return Math.floor(this.#deps.now() / 100) + 1
  }

  #due(): Way | undefined {
    const { leases } = this.#deps.peers
    for (const name of this.#known.keys()) if (!leases.has(name.slice(2))) this.#known.delete(name)
    for (let left = LOOKED_AT; left > 0; left--) {
      this.#cursor ??= leases.keys()
      const { value: key, done } = this.#cursor.next()
      if (done || key === undefined) {
        this.#cursor = undefined
        return undefined
      }
      const way = this.#dueOf(key)
      if (way !== undefined) return way
    }
    return undefined
  }

  #dueOf(key: string): Way | undefined {
    const { peers, prober, place, reconciler } = this.#deps
    const [{ node, backend } = {}, lease] = [place(), peers.leases.get(key)]
    if (node === undefined || backend === undefined || lease === undefined || peers.isOwn(key)) return undefined
    for (const [family, subnet] of perFamily(lease.subnet)) {
      const [own, route] = [node.subnet[family], prober.routeTo(key, family)]
      const device = route?.device === undefined ? undefined : reconciler.observed.get(`link ${route.device}` as Key)
      // The group policy extension carries the mark to the other node.
      if (own === undefined || device?.kind !== 'link' || device.form?.type !== 'vxlan' || device.form.gbp) continue
      const name = `${family} ${key}`
      const known = this.#known.get(name) ?? { wholeAt: undefined, askedAt: 0, attempts: [] }
      this.#known.set(name, known)
      const now = this.#tenths()
      const isWhole = prober.look(key, family, 'pods')?.judgement.verdict === 'whole'
      known.wholeAt = isWhole ? (known.wholeAt ?? now) : undefined
      const losses = known.attempts.length
      const pair = digestOf(key, family).low
      const due = translatedDue({ ...known, peers: peers.leases.size, pair, losses })
      if (due !== undefined && due <= now) return { key, source: backend.held(own), to: backend.held(subnet), device }
    }
    return undefined
  }

  async #ask({ source, to }: Way): Promise<Attempt> {
    const ask = (mark: number) => this.#deps.ask({ source: ipBytes(source), to: ipBytes(to), mark })
    const before = await ask(0)
    const translated = await ask(TRANSLATED_MARK)
    return { before, translated, after: await ask(0) }
  }

  async #attempt(way: Way): Promise<void> {
    const known = this.#known.get(`${way.to.family} ${way.key}`)
    if (known === undefined) return
    known.askedAt = this.#tenths()
    const attempt = await this.#ask(way)
    const isLost = attempt.before && attempt.after && !attempt.translated
    const attempts = [...known.attempts, attempt].slice(-KEPT)
    known.attempts = isLost ? attempts : []
    const verdict = judgeTranslated(attempts)
    if (verdict === 'translated-lost') await this.#cure(way)
    const cure = this.#cures.get(way.device.name)
    if (verdict === 'whole' && cure?.hasHelped === false && cure.to === way.key) {
      this.#cures.delete(way.device.name)
      this.#deps.health.clear('UNDERLAY_CHECKSUM')
    }
  }

  async #cure(way: Way): Promise<void> {
    const { offload, log, health, peers } = this.#deps
    const { name } = way.device
    const lease = peers.leases.get(way.key)
    const node = perFamily(lease?.publicIp ?? {})
      .map(([, ip]) => formatIp(ip))
      .join(' and ')
    const lost = `packets to the pods of ${node} whose source port is translated are lost, and others are answered`
    const wasOn = await offload.read(name)
    if (!wasOn) return this.#tell(way, `${lost}, although transmit checksum offload of ${name} is off`)
    await offload.set(name, false)
    if (!(await this.#ask(way)).translated) {
      await offload.set(name, true)
      return this.#tell(
        way,
        `${lost}, with transmit checksum offload of ${name} off as well: weftd has turned it on again`
      )
    }
    this.#cures.set(name, { index: way.device.index, to: way.key, hasHelped: true })
    log.warn({ lease: way.key, device: name }, `${lost}: transmit checksum offload of ${name} is turned off`)
    health.raise(
      'UNDERLAY_CHECKSUM',
      `${lost}; weftd has turned transmit checksum offload of ${name} off, and they are answered now`,
      'nothing has to be done; pods use somewhat more processor time. A newer kernel or driver may make it unnecessary: turn offload on and restart weftd to try'
    )
  }

  #tell({ device, key }: Way, detail: string): void {
    if (this.#cures.get(device.name)?.hasHelped === true) return
    this.#cures.set(device.name, { index: device.index, to: key, hasHelped: false })
    this.#deps.health.raise('UNDERLAY_CHECKSUM', detail)
  }

  /** A device that was made again offloads again. What somebody turns on without that stays on. */
  async #keepOff(): Promise<void> {
    const { reconciler, offload, log } = this.#deps
    for (const [name, cure] of this.#cures) {
      const device = reconciler.observed.get(`link ${name}` as Key)
      if (!cure.hasHelped || device?.kind !== 'link' || device.index === cure.index) continue
      try {
        await offload.set(name, false)
        this.#cures.set(name, { ...cure, index: device.index })
        log.info({ device: name }, `transmit checksum offload of the new ${name} is turned off`)
      } catch (error) {
        log.debug({ device: name, error: String(error) }, 'the device is gone again')
      }
    }
  }
}
