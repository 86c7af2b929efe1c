// Asks every peer once a day by a packet whose source port this node translates, and by untranslated ones to the same
// port. Where packets are lost that pass without transmit checksum offload, has it turned off on the tunnel's device.
import { FAMILIES, type Family, formatIp, type Ip, ipBytes, type PerFamily, perFamily } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import { andMore } from '../base/printable.ts'
import { nodeMasquerades } from '../firewall/masquerade.ts'
import { TRANSLATED_MARK, TRANSLATED_PORT, translatedProbe } from '../firewall/translated-probe.ts'
import type { Health } from '../health/health.ts'
import { networksOf, type Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import { type Link, linkNamed, tunnelOf } from '../state/object.ts'
import { textOf } from '../state/text.ts'
import type { Broken } from './checksum-alias.ts'
import { type Ask, ChecksumCures, type ChecksumCuresDeps, type Cure } from './checksum-cures.ts'
import { every } from './every.ts'
import { digestOf } from './probe-ends.ts'
import type { Prober } from './prober.ts'
import { type Attempt, areSilent, judgeTranslated, LOSSES } from './translated.ts'
import { DAY, firstDue, NextQuestions, nextDue } from './translated-schedule.ts'
import { checksumText, type TranslatedFinding } from './translated-text.ts'

export type TranslatedWaysDeps = {
  readonly prober: Pick<Prober, 'look' | 'routeTo'>
  readonly peers: Pick<Peers, 'leases' | 'isOwn'>
  readonly reconciler: ChecksumCuresDeps['reconciler']
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly place: () => Pick<Place, 'node' | 'backend' | 'conf'> | undefined
  readonly log: Log
  /** Whether the peer's kernel answers a packet with this mark; it may throw where this kernel does not send it. */
  readonly ask: (question: {
    readonly source: Uint8Array
    readonly to: Uint8Array
    readonly port: number
    readonly mark: number
  }) => Promise<boolean>
  readonly read: ChecksumCuresDeps['read']
  readonly changed: ChecksumCuresDeps['changed']
  /** Connections that this kernel tracks; `undefined`: it can't. */
  readonly tracked: () => number | undefined
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds between two looks. */
const EVERY = 1_000
/** Leases that are looked at in a look. */
const LOOKED_AT = 200
const OWNER = 'translated packets'
/** One for all peers. */
const NONE: readonly Attempt[] = []

/** Of a peer whose last answers were not whole. `at`: tenths of a second. */
type Doubt = {
  readonly attempts: readonly Attempt[]
  /** Attempts in a row of which nothing follows, those that failed here included. */
  readonly undecided: number
  readonly found?: { readonly is: 'silent' | 'lost'; readonly at: number } | undefined
}
type Way = { readonly key: string; readonly source: Ip; readonly to: Ip; readonly device: Link }

export class TranslatedWays {
  readonly #deps: TranslatedWaysDeps
  readonly #cures: ChecksumCures
  readonly #next: Readonly<Record<Family, NextQuestions>> = { 4: new NextQuestions(), 6: new NextQuestions() }
  readonly #doubts: Readonly<Record<Family, Map<string, Doubt>>> = { 4: new Map(), 6: new Map() }
  #cursor: Iterator<string> | undefined
  #rule: string | undefined
  /** The place that the rule is for. */
  #ruleFor: ReturnType<TranslatedWaysDeps['place']>
  #isRefused = false
  #tracks = false
  /** A condition is raised. */
  #isSaid = false
  /** When offload was last turned off for a peer that answered nothing, by device. */
  readonly #silenceTried = new Map<string, number>()
  #adoptedFor: Place['node'] | undefined

  constructor(deps: TranslatedWaysDeps) {
    this.#deps = deps
    const { reconciler, log, read, changed } = deps
    this.#cures = new ChecksumCures({ reconciler, log, read, changed, now: () => this.#now() })
  }

  /** Until the signal, and rejects with it. */
  follow(signal: AbortSignal): Promise<void> {
    return every(EVERY, () => this.step(), signal)
  }

  /** Asks one peer that is due. */
  async step(): Promise<void> {
    await this.#adopt()
    if (!(await this.#wantRule())) return
    const retried = this.#dueRetry()
    const way = retried?.way ?? this.#due()
    if (way === undefined) return
    try {
      if (retried !== undefined) await this.#cures.retry(retried.cure, this.#asker(retried.way))
      else await this.#attempt(way)
    } catch (error) {
      // The device or an address is gone, or a local firewall drops it: that says nothing about the way.
      const isExpected = error instanceof Error && 'errnoName' in error
      this.#deps.log[isExpected ? 'debug' : 'error']({ err: error }, 'a translated packet was not sent')
    } finally {
      this.#report()
    }
  }

  /** What was found last, for weftctl; `undefined`: this network has no tunnel whose packets are translated. */
  finding(key: string, family: Family): TranslatedFinding | undefined {
    const { prober, place } = this.#deps
    const { node, backend } = place() ?? {}
    const outer = backend?.markedOuter
    if (node?.subnet[family] === undefined || outer === undefined) return undefined
    const device = this.#deviceTo(key, family)
    const found = this.#found(key, family)
    if (device === undefined) return { is: 'not-asked', why: 'no-tunnel', device: node.device }
    if (found !== undefined) {
      const msAgo = (this.#now() - found.at) * 100
      const isCured = this.#cures.list().some((cure) => cure.device === device.name)
      return { is: found.is, msAgo, device: device.name, isCured }
    }
    if (!this.#tracks) return { is: 'not-asked', why: 'untracked', device: device.name }
    if (this.#isRefused) return { is: 'not-asked', why: 'refused', device: device.name }
    const isWhole = prober.look(key, family, 'pods')?.judgement.verdict === 'whole'
    return { is: 'not-asked', why: isWhole ? 'not-due' : 'not-whole', device: device.name }
  }

  #found(key: string, family: Family): { readonly is: 'whole' | 'silent' | 'lost'; readonly at: number } | undefined {
    const doubt = this.#doubts[family].get(key)?.found
    const wholeAt = this.#next[family].wholeAt(key)
    return doubt ?? (wholeAt === undefined ? undefined : { is: 'whole', at: wholeAt })
  }

  /** An earlier weftd may have left its cure on our devices. */
  async #adopt(): Promise<void> {
    const { node, backend } = this.#deps.place() ?? {}
    if (node === undefined || backend === undefined || node === this.#adoptedFor) return
    const devices = backend
      .own(node)
      .flatMap((object) => (object.kind === 'link' && tunnelOf(object) ? object.name : []))
    await this.#cures.only(devices)
    for (const device of devices) await this.#cures.adopt(device)
    this.#adoptedFor = node
    this.#report()
  }

  /**
   * A rule that translates makes the kernel track all connections: where it tracks none, no packet to another node is
   * translated, and none is asked by.
   */
  async #wantRule(): Promise<boolean> {
    const { reconciler, place, tracked } = this.#deps
    const placed = place()
    if (placed?.backend.markedOuter === undefined) return false
    this.#tracks ||= nodeMasquerades(reconciler.observed) || (tracked() ?? 0) > 0
    if (!this.#tracks) return false
    if (placed === this.#ruleFor) return !this.#isRefused
    this.#ruleFor = placed
    const { node, backend, conf } = placed
    const source: PerFamily<Ip> = Object.fromEntries(
      perFamily(node.subnet).map(([family, subnet]) => [family, backend.held(subnet)])
    )
    const rule = translatedProbe({ source, cluster: networksOf(conf), outer: placed.backend.markedOuter })
    const text = `${textOf(rule)} ${rule.digests.join(' ')}`
    if (text === this.#rule) return !this.#isRefused
    this.#rule = text
    const outcomes = await reconciler.want(OWNER, [rule])
    this.#isRefused = outcomes.some(({ error }) => error !== undefined)
    // Pods need no such rule: a kernel that has none is no fault of this node.
    if (this.#isRefused) await reconciler.want(OWNER, [])
    return !this.#isRefused
  }

  #now(): number {
    return Math.floor(this.#deps.now() / 100) + 1
  }

  /** The tunnel's device; `undefined` where packets of pods take another way. */
  #deviceTo(key: string, family: Family): Link | undefined {
    const { prober, place, reconciler } = this.#deps
    const name = prober.routeTo(key, family)?.device
    const device = name === undefined ? undefined : linkNamed(reconciler.observed, name)
    const port = place()?.backend.markedOuter?.port
    return device !== undefined && port !== undefined && tunnelOf(device)?.port === port ? device : undefined
  }

  #wayTo(key: string, family: Family): Way | undefined {
    const { node, backend } = this.#deps.place() ?? {}
    const lease = this.#deps.peers.leases.get(key)
    const [own, subnet] = [node?.subnet[family], lease?.subnet[family]]
    const device = this.#deviceTo(key, family)
    if (backend === undefined || own === undefined || subnet === undefined || device === undefined) return undefined
    return { key, source: backend.held(own, lease), to: backend.held(subnet, lease), device }
  }

  /** The cure that is tried without next, by the peer for which it was found, or any other that is reached so. */
  #dueRetry(): { readonly cure: Cure; readonly way: Way } | undefined {
    for (const cure of this.#cures.list()) {
      if (!this.#cures.isDue(cure)) continue
      for (const key of [cure.key, ...this.#deps.peers.leases.keys()])
        for (const family of FAMILIES) {
          const way = this.#deps.peers.isOwn(key) ? undefined : this.#wayTo(key, family)
          if (way?.device.name === cure.device && this.#isWhole(key, family)) return { cure, way }
        }
    }
    return undefined
  }

  #isWhole(key: string, family: Family): boolean {
    return this.#deps.prober.look(key, family, 'pods')?.judgement.verdict === 'whole'
  }

  #due(): Way | undefined {
    const { leases } = this.#deps.peers
    for (let left = LOOKED_AT; left > 0; left--) {
      this.#cursor ??= this.#start()
      const { value: key, done } = this.#cursor.next()
      if (done || key === undefined) {
        this.#cursor = undefined
        return undefined
      }
      for (const family of FAMILIES)
        if (leases.has(key) && this.#isDue(key, family)) {
          const way = this.#wayTo(key, family)
          if (way !== undefined) return way
        }
    }
    return undefined
  }

  #start(): Iterator<string> {
    const { leases } = this.#deps.peers
    for (const family of FAMILIES) {
      this.#next[family].keep(leases)
      for (const key of this.#doubts[family].keys()) if (!leases.has(key)) this.#doubts[family].delete(key)
    }
    // The way may be another by now.
    if (this.#isSaid) this.#report()
    return leases.keys()
  }

  #isDue(key: string, family: Family): boolean {
    const { peers } = this.#deps
    const now = this.#now()
    const knownDueAt = this.#next[family].dueAt(key)
    if (knownDueAt !== undefined) return knownDueAt <= now && this.#isWhole(key, family)
    if (peers.isOwn(key) || !this.#isWhole(key, family)) return false
    const pair = digestOf(key, family).low
    const dueAt = firstDue(peers.leases.size, pair, now)
    this.#next[family].set(key, dueAt, false)
    return dueAt <= now
  }

  #asker({ source, to }: Way): Ask {
    const ends = { source: ipBytes(source), to: ipBytes(to), port: TRANSLATED_PORT }
    const ask = (mark: number) => this.#deps.ask({ ...ends, mark })
    return { untranslated: () => ask(0), translated: () => ask(TRANSLATED_MARK) }
  }

  async #attempt(way: Way): Promise<void> {
    const { key } = way
    const [next, doubts] = [this.#next[way.to.family], this.#doubts[way.to.family]]
    const [at, doubt] = [this.#now(), doubts.get(key)]
    const undecided = (doubt?.undecided ?? 0) + 1
    doubts.set(key, { attempts: NONE, ...doubt, undecided })
    next.set(key, nextDue(at, undecided), false)
    const ask = this.#asker(way)
    const before = await ask.untranslated()
    const translated = await ask.translated()
    const attempt: Attempt = { before, translated, after: await ask.untranslated() }
    const attempts = [...(doubt?.attempts ?? NONE), attempt].slice(-LOSSES)
    const verdict = judgeTranslated(attempts)
    const isSilent = areSilent(attempts)
    if (verdict === 'whole') return this.#whole(way, at)
    const isOpen = !attempt.translated && attempt.before === attempt.after
    doubts.set(key, { attempts: isOpen ? attempts : NONE, undecided, found: doubt?.found })
    if (verdict === 'translated-lost') await this.#lost(way, 'translated')
    else if (isSilent) await this.#lost(way, 'all')
  }

  #whole({ key, to }: Way, at: number): void {
    this.#doubts[to.family].delete(key)
    this.#next[to.family].set(key, at + DAY, true)
  }

  /** Proven: attempts are counted from zero again. */
  async #lost(way: Way, broken: Broken): Promise<void> {
    const { name } = way.device
    const at = this.#now()
    const is = broken === 'all' ? 'silent' : 'lost'
    this.#doubts[way.to.family].set(way.key, { attempts: NONE, undecided: 0, found: { is, at } })
    this.#next[way.to.family].set(way.key, nextDue(at, 0), false)
    // Mostly a firewall drops the port: not for each such peer.
    const triedAt = this.#silenceTried.get(name)
    if (broken === 'all' && triedAt !== undefined && at < triedAt + DAY) return
    if (broken === 'all') this.#silenceTried.set(name, at)
    if ((await this.#cures.try(name, { broken, key: way.key }, this.#asker(way))) !== 'cured') return
    this.#whole(way, this.#now())
    const node = this.#nameOf(way.key)
    this.#deps.log.warn(
      { lease: way.key, device: name },
      checksumText({ is: 'cured', broken, node, device: name }).text
    )
  }

  #nameOf(key: string): string {
    const lease = this.#deps.peers.leases.get(key)
    const addresses = perFamily(lease?.publicIp ?? {}).map(([, ip]) => formatIp(ip))
    return lease?.node ?? (addresses.length > 0 ? addresses.join(' and ') : key)
  }

  /** What is lost comes before what was cured. */
  #report(): void {
    const { health } = this.#deps
    const lost = FAMILIES.flatMap((family) =>
      [...this.#doubts[family]].flatMap(([key, { found }]) =>
        found?.is === 'lost' && this.#deviceTo(key, family) !== undefined ? [key] : []
      )
    )
    const [first] = lost
    const [cure] = this.#cures.list()
    this.#isSaid = first !== undefined || cure !== undefined
    if (first !== undefined) {
      const device = this.#deviceTo(first, 4) ?? this.#deviceTo(first, 6)
      const about = { is: 'lost', node: this.#nameOf(first), device: device?.name ?? 'the tunnel' } as const
      const { text, cure: action } = checksumText(about)
      health.raise('UNDERLAY_CHECKSUM', `${text}${andMore(lost.length - 1)}`, action)
    } else if (cure === undefined) health.clear('UNDERLAY_CHECKSUM')
    else {
      const { broken, device, key } = cure
      const { text, cure: action } = checksumText({ is: 'cured', broken, node: this.#nameOf(key), device })
      health.raise('UNDERLAY_CHECKSUM', text, action)
    }
  }
}
