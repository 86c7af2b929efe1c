// Follows echo requests of ours through nftables: has the kernel trace them (`meta nftrace`), reads its trace messages,
// and removes what was needed for it.
import { randomInt } from 'node:crypto'
import { reasonOf } from '../../base/error.ts'
import { SerialQueue } from '../../base/serial-queue.ts'
import type { Dropped, Echo, EchoOutcome, Leg, Passed } from '../../state/inspection.ts'
import type { NftFamily } from '../../state/object.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { NETLINK_NETFILTER, NFGENMSG, NFNL_SUBSYS, nftFamilyOf } from '../netlink/nfnetlink.ts'
import { NotificationSocket } from '../netlink/notification-socket.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { ChainReader } from './chain-reader.ts'
import { familiesOfOwn } from './read-tables.ts'
import { NftSession } from './session.ts'
import { markIn, passedIn, TRACE_FAMILIES, TRACE_TABLE, traceTable } from './trace-rules.ts'
import { NFTA_VERDICT, VERDICT } from './uapi.ts'

/** <linux/netfilter/nfnetlink.h>, <linux/netfilter/nf_tables.h>. */
const NFNLGRP_NFTRACE = 9
const NFT_MSG_TRACE = 17
const NFTA_TRACE = { table: 1, chain: 2, handle: 3, type: 4, verdict: 5, id: 6, oif: 12, policy: 16 } as const
const TYPE = { policy: 1, rule: 3 } as const
/** An administrator's traces of other packets are in the same group. */
const RECEIVE_BYTES = 1 << 20
/** A packet passes some tens of rules. */
const MOST_EVENTS = 20_000

/** One step of one packet, as the kernel reports it. */
export type TraceEvent = {
  readonly id: number
  readonly family: NftFamily
  readonly table: string
  readonly chain: string
  readonly handle?: bigint
  readonly type: number
  /** NF_* or NFT_*; of a policy, too. */
  readonly verdict: number
  readonly to?: string
  readonly oif?: number
}

/** `undefined`: another message, or of a family that nothing here has. Errors: MalformedMessage. */
export function decodeTrace(message: Message): TraceEvent | undefined {
  const { type, body } = message
  if (type !== ((NFNL_SUBSYS.nftables << 8) | NFT_MSG_TRACE)) return undefined
  const attributes = new Attributes(body, NFGENMSG)
  // Of the chain, not of the packet (NFTA_TRACE_NFPROTO).
  const family = nftFamilyOf(message)
  const id = attributes.u32BigEndian(NFTA_TRACE.id)
  if (id === undefined || family === undefined) return undefined
  const verdict = attributes.nested(NFTA_TRACE.verdict)
  const [handle, to, oif] = [
    attributes.u64BigEndian(NFTA_TRACE.handle),
    verdict?.text(NFTA_VERDICT.chain),
    attributes.u32BigEndian(NFTA_TRACE.oif)
  ]
  return {
    ...{ id, family, type: attributes.u32BigEndian(NFTA_TRACE.type) ?? 0 },
    ...{ table: attributes.text(NFTA_TRACE.table) ?? '', chain: attributes.text(NFTA_TRACE.chain) ?? '' },
    verdict: (verdict?.u32BigEndian(NFTA_VERDICT.code) ?? attributes.u32BigEndian(NFTA_TRACE.policy) ?? -1) | 0,
    ...(handle !== undefined && { handle }),
    ...(to !== undefined && { to }),
    ...(oif !== undefined && { oif })
  }
}

/** Keeps the events of packets that a rule of ours has marked; returns whether it is one. */
export class OurEvents {
  readonly kept: TraceEvent[] = []
  readonly #ids = new Set<number>()

  take(event: TraceEvent): boolean {
    if (event.table === TRACE_TABLE && markIn(event.to) !== undefined) this.#ids.add(event.id)
    if (!this.#ids.has(event.id) || this.kept.length >= MOST_EVENTS) return false
    this.kept.push(event)
    return true
  }
}

type Step = Dropped & { readonly handle?: bigint }
/** What the events say of request `number`, from 1. */
export type Course = { readonly passed: readonly Passed[]; readonly dropped: readonly Step[] }

/** Only packets that a rule of ours has marked count. */
export function courseOf(
  events: readonly TraceEvent[],
  number: number,
  nameOf: (index: number) => string | undefined
): Course {
  const legs = new Map<number, Leg>()
  const [passed, dropped]: [Passed[], Step[]] = [[], []]
  for (const event of events) {
    const isOurs = event.table === TRACE_TABLE
    const mark = isOurs ? markIn(event.to) : undefined
    // The kernel uses an id again, for another packet.
    if (mark?.number === number) legs.set(event.id, mark.leg)
    else if (mark !== undefined) legs.delete(event.id)
    const leg = legs.get(event.id)
    if (leg === undefined) continue
    const milestone = isOurs ? passedIn(event.chain) : undefined
    if (milestone !== undefined && event.family === 'inet')
      passed.push({ leg, ...milestone, ...leavesBy(event, nameOf) })
    const step = isOurs ? undefined : dropIn(event)
    if (step !== undefined) dropped.push({ leg, ...step })
  }
  return { passed: onceEach(passed), dropped }
}

/** A chain reports the packet and its policy in messages of their own; the first names the device. */
const onceEach = (passed: readonly Passed[]): readonly Passed[] =>
  passed.filter(
    (one, at) =>
      passed.findIndex(({ leg, hook, side }) => leg === one.leg && hook === one.hook && side === one.side) === at
  )

function leavesBy({ oif }: TraceEvent, nameOf: (index: number) => string | undefined): { readonly device?: string } {
  const device = oif === undefined ? undefined : nameOf(oif)
  return device === undefined ? {} : { device }
}

/** What ends a packet's way: a rule's verdict, or the policy of a chain. */
function dropIn({ family, table, chain, handle, type, verdict }: TraceEvent): Omit<Step, 'leg'> | undefined {
  const code = verdict & 0xff
  if (verdict < 0 || (code !== VERDICT.drop && code !== VERDICT.queue)) return undefined
  if (type !== TYPE.rule && type !== TYPE.policy) return undefined
  return {
    ...{ family, table, chain, verdict: code === VERDICT.queue ? 'queue' : 'drop' },
    ...(type === TYPE.rule && handle !== undefined && { handle })
  }
}

/** `hopeless` gets a function that says that a request or its answer was dropped, by its number from 1. */
export type SendEchoes = (
  echoes: readonly Echo[],
  id: number,
  hopeless: (giveUp: (number: number) => void) => void
) => Promise<readonly Omit<EchoOutcome, 'passed' | 'dropped' | 'untraced'>[]>

/** One trace at a time; each lasts as long as `send` takes, or until the signal. */
export class Tracer implements AsyncDisposable {
  readonly #queue = new SerialQueue()
  readonly #send: SendEchoes
  readonly #signal: AbortSignal

  constructor(send: SendEchoes, signal: AbortSignal) {
    this.#send = send
    this.#signal = signal
  }

  /** Waits until the trace that runs is removed; those that wait do not begin once the signal has aborted. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#queue.take(async () => undefined)
  }

  /**
   * Sends the requests and follows them; without nftables' trace they are sent all the same. Errors: the reason of the
   * signal.
   */
  follow(echoes: readonly Echo[]): Promise<readonly EchoOutcome[]> {
    return this.#queue.take(async () => {
      this.#signal.throwIfAborted()
      const id = randomInt(1, 0xffff)
      const ours = new OurEvents()
      const events = ours.kept
      let giveUp: (number: number) => void = () => undefined
      // Nothing comes after a drop, so that a firewall is named at once.
      const heard = (event: TraceEvent): void => {
        if (!ours.take(event) || event.table === TRACE_TABLE || dropIn(event) === undefined) return
        for (let number = 1; number <= echoes.length; number++)
          if (courseOf(events, number, () => undefined).dropped.some(({ verdict }) => verdict === 'drop'))
            giveUp(number)
      }
      let untraced: string | undefined
      await using parts = new AsyncDisposableStack()
      const stop = (): void => {
        for (let number = 1; number <= echoes.length; number++) giveUp(number)
      }
      this.#signal.addEventListener('abort', stop)
      parts.defer(() => this.#signal.removeEventListener('abort', stop))
      try {
        parts.use(listen(heard))
        parts.use(await makeTables(echoes, id))
      } catch (error) {
        untraced = reasonOf(error)
      }
      const answers = await this.#send(echoes, id, (give) => {
        giveUp = give
        if (this.#signal.aborted) stop()
      })
      // Trace messages arrive after the packet has gone on.
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
      const lost = { passed: [], dropped: [], untraced: untraced ?? '' }
      if (untraced !== undefined) return answers.map((answer) => ({ ...answer, ...lost }))
      return withTexts(answers, events)
    })
  }
}

const INET = ['inet'] as const
const SETTLE_MS = 30

function listen(heard: (event: TraceEvent) => void): Disposable {
  return new NotificationSocket(
    {
      message(message) {
        const event = decodeTrace(message)
        if (event !== undefined) heard(event)
      },
      lost() {
        // A step of ours may be missing then, which reads as a packet that was not seen there.
      }
    },
    { protocol: NETLINK_NETFILTER, groups: [NFNLGRP_NFTRACE], receiveBytes: RECEIVE_BYTES, keepsNothing: true }
  )
}

/** Removes what a weftd that was killed left on a kernel that does not do it itself. Never rejects. */
export async function removeTraces(): Promise<void> {
  try {
    using socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
    const left = await familiesOfOwn(socket, TRACE_TABLE)
    if (left.length === 0) return
    using session = new NftSession()
    await session.exclusive((run) => run(left.map(deletion).join('; ')))
  } catch {
    // What can't be listed is not traced either.
  }
}

const deletion = (family: string): string => `delete table ${family} ${TRACE_TABLE}`

/** In the bridge family only for packets that may stay on a bridge, and where the kernel has it. Errors: the words of libnftables. */
async function makeTables(echoes: readonly Echo[], id: number): Promise<AsyncDisposable> {
  const session = new NftSession()
  let made: readonly string[] = []
  const remove = async (): Promise<void> => {
    try {
      await session.exclusive(async (run) => {
        for (const family of made) await run(deletion(family))
      })
    } finally {
      session[Symbol.dispose]()
    }
  }
  try {
    let words = ''
    await session.exclusive(async (run) => {
      const choices = echoes.some(({ bridged }) => bridged) ? [TRACE_FAMILIES, INET] : [INET]
      for (const families of choices) {
        for (const owned of [true, false]) {
          const result = await run(families.map((family) => traceTable(family, echoes, id, owned)).join('\n'))
          if (!result.done) words = result.complaints.map((one) => one.words).join('; ')
          else {
            made = families
            return
          }
        }
      }
    })
    if (made.length === 0) throw new Error(words)
    return { [Symbol.asyncDispose]: remove }
  } catch (error) {
    await remove()
    throw error
  }
}

async function withTexts(
  answers: Awaited<ReturnType<SendEchoes>>,
  events: readonly TraceEvent[]
): Promise<readonly EchoOutcome[]> {
  using socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
  using reader = new ChainReader()
  const outcomes: EchoOutcome[] = []
  for (const [at, answer] of answers.entries()) {
    const { passed, dropped } = courseOf(events, at + 1, (index) => socket.nameOf(index))
    const named: Dropped[] = []
    for (const { handle, ...step } of dropped)
      named.push(handle === undefined ? step : { ...step, rule: await textOfRule(reader, step, handle) })
    outcomes.push({ ...answer, passed, dropped: named })
  }
  return outcomes
}

/** Its handle where the rule was deleted meanwhile or can't be read. */
async function textOfRule(reader: ChainReader, { family, table, chain }: Dropped, handle: bigint): Promise<string> {
  const text = await reader.textOf({ family, table, name: chain }, handle).catch(() => undefined)
  return text ?? `handle ${handle}`
}
