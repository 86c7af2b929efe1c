// Deleting links. Each deletion makes its caller wait for 15–25 ms, one deletion of a whole group waits once: 50 links one by one 1,256 ms, as a group 45 ms
// (kernel 6.18). So links to be removed are moved into a group of ours and the group is deleted; what arrives meanwhile goes into the next round.
//
// Nearly all of that wait comes after the rtnl lock was let go: the links are unlisted after 1 ms (a group of 50: 8 ms) and others get the lock 0.6 ms later,
// while the caller waits for RCU's callbacks (rcu_barrier in netdev_run_todo). So callers here wait only until their link has left the kernel's lists, and the
// next round begins then too, on another socket. A link that has left the lists has no address, route, neighbour or bridge port any more and sends and
// receives nothing (unregister_netdevice_many closes it first), so its pod's address may be given to another pod.
import { setTimeout } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import { errnoName } from '../os/libc.ts'
import type { Link } from '../state/object.ts'
import { DOOMED_GROUP } from '../state/ownership.ts'
import { deleteGroup, deleteLink, moveToGroup } from './netlink/encode.ts'
import { refused } from './netlink/error.ts'
import type { Failure, RequestSocket } from './netlink/requests.ts'
import { pollUntil } from './poll.ts'

type Doomed = {
  readonly link: Link
  readonly index: number
  readonly done: (error: Error | undefined) => void
  gone: boolean
}

/** For the first milliseconds of a lone deletion look in every turn of the event loop: it is over by then. Among many that would cost more than it gains. */
const EAGER_MS = 3
/** So long a round waits for company while an earlier one has not returned. */
const GATHER_MS = 2

type LinkSocket = Pick<RequestSocket, 'send' | 'indexOf' | 'nameOf'>

/** Removes links of one network namespace, in rounds. */
export class LinkDeleter {
  /** Asks what is there; deletes while a round is under way on no other. */
  readonly #socket: LinkSocket
  /** Those on which nothing is being deleted. */
  readonly #free: LinkSocket[]
  readonly #log: Log
  #waiting: Doomed[] = []
  #running: Promise<void> | undefined
  /** Deletions whose links have left the lists, but whose call has not returned. */
  readonly #returning = new Set<Promise<unknown>>()
  /** Rounds run so far; each is one RTM_DELLINK and one grace period. */
  rounds = 0

  /** As many rounds may be under way as there are sockets; each should have a lane of its own. */
  constructor(sockets: readonly [LinkSocket, ...LinkSocket[]], log: Log) {
    this.#socket = sockets[0]
    this.#free = [...sockets]
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
    await Promise.allSettled(this.#returning)
  }

  async #rounds(): Promise<void> {
    // Whoever asks in the same turn shares the round.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const isAlone = this.#returning.size === 0
      if (!isAlone) await setTimeout(GATHER_MS)
      const socket = await this.#freeSocket()
      const doomed = this.#waiting
      this.#waiting = []
      this.rounds++
      let returned = false
      const deletion = this.#delete(socket, doomed)
        .then((failures) => settle(doomed, failures))
        .catch((error) => fail(doomed, error))
        .finally(() => {
          returned = true
          this.#free.push(socket)
          this.#returning.delete(deletion)
        })
      this.#returning.add(deletion)
      await this.#watch(doomed, isAlone ? EAGER_MS : 0, () => returned)
    }
    this.#running = undefined
  }

  async #freeSocket(): Promise<LinkSocket> {
    for (;;) {
      const socket = this.#free.pop()
      if (socket !== undefined) return socket
      await Promise.race(this.#returning)
    }
  }

  /** Answers those whose link has left the lists, until the request has ended. All links of a group leave together. */
  async #watch(doomed: readonly Doomed[], eagerMs: number, ended: () => boolean): Promise<void> {
    await pollUntil(() => {
      if (ended()) return true
      for (const one of doomed) {
        if (one.gone) continue
        if (this.#socket.nameOf(one.index) !== undefined) return false
        one.gone = true
        one.done(undefined)
      }
      return true
    }, eagerMs)
  }

  async #delete(socket: LinkSocket, doomed: readonly Doomed[]): Promise<readonly Failure[]> {
    const eachAlone = () => socket.send(doomed.map(({ link }) => deleteLink(link.name)))
    if (doomed.length === 1) return eachAlone()
    const failures = await socket.send([
      ...doomed.map(({ link }) => moveToGroup(link.name, DOOMED_GROUP)),
      deleteGroup(DOOMED_GROUP)
    ])
    const group = failures.at(-1)
    if (group === undefined || errnoName(group.errno) === 'ENODEV') return failures.slice(0, -1)
    // One link that can't be deleted (a physical device) spoils its group: try each alone, and put back what stays.
    const alone = await eachAlone()
    const staying = doomed.filter((_, at) => alone[at] !== undefined && errnoName(alone[at].errno) !== 'ENODEV')
    await socket.send(staying.map(({ link }) => moveToGroup(link.name, link.group ?? 0)))
    return alone
  }
}

function fail(doomed: readonly Doomed[], error: unknown): void {
  for (const one of doomed) if (!one.gone) one.done(error instanceof Error ? error : new Error(String(error)))
}

function settle(doomed: readonly Doomed[], failures: readonly Failure[]): void {
  for (const [at, one] of doomed.entries()) {
    if (one.gone) continue
    const failure = failures[at]
    const fine = failure === undefined || errnoName(failure.errno) === 'ENODEV'
    one.done(fine ? undefined : refused('remove', one.link, failure.errno, failure.sentence))
  }
}
