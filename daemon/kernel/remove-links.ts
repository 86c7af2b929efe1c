// Deleting links. Each deletion makes its caller wait 15–25 ms for a grace period under the rtnl lock, one deletion of a whole group waits once:
// 50 links one by one 1,256 ms, as a group 45 ms (kernel 6.18). So links to be removed are moved into a group of ours and the group is deleted; what arrives
// meanwhile goes into the next round. Callers wait only until the link has left the kernel's lists, 0.3 ms after the request (measured), not for the grace period.
import { setImmediate, setTimeout } from 'node:timers/promises'
import type { Log } from '../log.ts'
import type { Link } from '../state/object.ts'
import { DOOMED_GROUP } from '../state/ownership.ts'
import { deleteGroup, deleteLink, moveToGroup } from './encode.ts'
import { refused } from './error.ts'
import { errnoName } from './libc.ts'
import type { Failure, Rtnetlink } from './rtnetlink.ts'

type Doomed = {
  readonly link: Link
  readonly index: number
  readonly done: (error: Error | undefined) => void
  gone: boolean
}

/** For the first milliseconds look in every turn of the event loop; a lone deletion is over by then. */
const EAGER_MS = 3

/** Removes links of one network namespace, in rounds. */
export class LinkRemover {
  readonly #socket: Rtnetlink
  readonly #log: Log
  #waiting: Doomed[] = []
  #running: Promise<void> | undefined
  /** Rounds run so far; each is one RTM_DELLINK and one grace period. */
  rounds = 0

  constructor(socket: Rtnetlink, log: Log) {
    this.#socket = socket
    this.#log = log
  }

  /** Resolves with the reason it failed, or with `undefined` once the link has left the kernel's lists; at once when it is gone already. */
  remove(link: Link): Promise<Error | undefined> {
    const index = this.#socket.indexOf(link.name)
    if (index === undefined) return Promise.resolve(undefined)
    return new Promise((done) => {
      this.#waiting.push({ link, index, done, gone: false })
      this.#running ??= this.#rounds()
    })
  }

  /** Deletes what a killed daemon left in the group. */
  async finishOldWork(): Promise<void> {
    const [failure] = await this.#socket.send([deleteGroup(DOOMED_GROUP)])
    if (failure === undefined)
      this.#log.info({ group: DOOMED_GROUP }, 'links deleted that an earlier run had begun to delete')
    else if (errnoName(failure.errno) !== 'ENODEV') {
      this.#log.warn(
        { group: DOOMED_GROUP, errno: errnoName(failure.errno), sentence: failure.sentence },
        'links of an earlier run can not be deleted'
      )
    }
  }

  /** Resolves when nothing is being deleted any more. */
  async idle(): Promise<void> {
    await this.#running
  }

  async #rounds(): Promise<void> {
    // Whoever asks in the same turn shares the round.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const doomed = this.#waiting
      this.#waiting = []
      this.rounds++
      let sent = false
      const deletion = this.#delete(doomed).finally(() => {
        sent = true
      })
      try {
        await this.#watch(doomed, () => sent)
        settle(doomed, await deletion)
      } catch (error) {
        for (const one of doomed) if (!one.gone) one.done(error instanceof Error ? error : new Error(String(error)))
      }
    }
    this.#running = undefined
  }

  /** Answers those whose link has left the lists, until the request has ended. All links of a group leave together. */
  async #watch(doomed: readonly Doomed[], ended: () => boolean): Promise<void> {
    const start = performance.now()
    while (!ended()) {
      const left = doomed.filter((one) => !one.gone)
      if (left.length === 0) return
      for (const one of left) {
        if (this.#socket.nameOf(one.index) !== undefined) break
        one.gone = true
        one.done(undefined)
      }
      await (performance.now() - start < EAGER_MS ? setImmediate() : setTimeout(1))
    }
  }

  async #delete(doomed: readonly Doomed[]): Promise<readonly Failure[]> {
    const failures = await this.#socket.send([
      ...doomed.map(({ link }) => moveToGroup(link.name, DOOMED_GROUP)),
      deleteGroup(DOOMED_GROUP)
    ])
    const group = failures.at(-1)
    if (group === undefined || errnoName(group.errno) === 'ENODEV') return failures.slice(0, -1)
    // One link that can't be deleted (a physical device) spoils its group: try each alone, and put back what stays.
    const alone = await this.#socket.send(doomed.map(({ link }) => deleteLink(link.name)))
    const staying = doomed.filter((_, at) => alone[at] !== undefined && errnoName(alone[at].errno) !== 'ENODEV')
    await this.#socket.send(staying.map(({ link }) => moveToGroup(link.name, link.group ?? 0)))
    return alone
  }
}

function settle(doomed: readonly Doomed[], failures: readonly Failure[]): void {
  for (const [at, one] of doomed.entries()) {
    if (one.gone) continue
    const failure = failures[at]
    const fine = failure === undefined || errnoName(failure.errno) === 'ENODEV'
    one.done(fine ? undefined : refused('remove', one.link, failure.errno, failure.sentence))
  }
}
