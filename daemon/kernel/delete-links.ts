// Deletes links in groups. Each deletion blocks its caller for 15–25 ms, the deletion of a whole group only once: 50
// links one by one 1,256 ms, as a group 45 ms (kernel 6.18). So links are moved into a group of Weft's and the group is
// deleted; links that arrive meanwhile are in the next round.
//
// Nearly all of that wait comes after the rtnl lock was released: the links are unlisted after 1 ms (a group of 50: 8
// ms) and others get the lock 0.6 ms later, while the caller waits for RCU callbacks (rcu_barrier in netdev_run_todo).
// So callers here wait only until their link has left the kernel's lists, and the next round starts then too, on
// another socket. A link that has left the lists has no address, route, neighbour or bridge port any more and neither
// sends nor receives (unregister_netdevice_many closes it first), so its pod's address may be given to another pod.
import { setTimeout } from 'node:timers/promises'
import { toError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { errnoName } from '../os/libc.ts'
import type { Link } from '../state/object.ts'
import { DOOMED_GROUP } from '../state/ownership.ts'
import { deleteGroup, deleteLink, moveToGroup } from './netlink/encode.ts'
import { refused } from './netlink/error.ts'
import type { Failure, RequestSocket } from './netlink/request-socket.ts'
import { pollUntil } from './poll.ts'

type Deletion = {
  readonly link: Link
  readonly index: number
  readonly done: (error: Error | undefined) => void
  gone: boolean
}

/**
 * Milliseconds of eager polling for a single deletion, which is done by then. Among many it would cost more than it
 * gains.
 */
const EAGER_MS = 3
/** Milliseconds that a round waits for more links while an earlier one has not returned. */
const GATHER_MS = 2

type LinkSocket = Pick<RequestSocket, 'send' | 'indexOf' | 'nameOf'>

/** Removes links of one network namespace, in rounds. */
export class LinkDeleter {
  /** For look-ups; also the first that deletes. */
  readonly #socket: LinkSocket
  /** Sockets without a deletion in progress. */
  readonly #free: LinkSocket[]
  readonly #log: Log
  #waiting: Deletion[] = []
  #running: Promise<void> | undefined
  /** Deletions whose links have left the lists, but whose system call has not returned. */
  readonly #returning = new Set<Promise<unknown>>()
  /** Rounds run so far; each is one RTM_DELLINK and one grace period. */
  rounds = 0

  /** There are at most as many rounds at once as sockets; each should have a lane of its own. */
  constructor(sockets: readonly [LinkSocket, ...LinkSocket[]], log: Log) {
    this.#socket = sockets[0]
    this.#free = [...sockets]
    this.#log = log
  }

  /**
   * Resolves with the error, or with `undefined` once the link has left the kernel's lists; at once when there is no
   * such link.
   */
  remove(link: Link): Promise<Error | undefined> {
    const index = this.#socket.indexOf(link.name)
    if (index === undefined) return Promise.resolve(undefined)
    return new Promise((done) => {
      this.#waiting.push({ link, index, done, gone: false })
      this.#running ??= this.#rounds()
    })
  }

  /** Deletes the links that a killed daemon left in the group. */
  async finishInterrupted(): Promise<void> {
    const [failure] = await this.#socket.send([deleteGroup(DOOMED_GROUP)])
    if (failure === undefined) this.#log.info({ group: DOOMED_GROUP }, 'deleted links of an interrupted deletion')
    else if (errnoName(failure.errno) !== 'ENODEV') {
      this.#log.warn(
        { group: DOOMED_GROUP, errno: errnoName(failure.errno), sentence: failure.sentence },
        "links of an interrupted deletion can't be deleted"
      )
    }
  }

  /** Resolves when no deletion is in progress. */
  async idle(): Promise<void> {
    await this.#running
    await Promise.allSettled(this.#returning)
  }

  async #rounds(): Promise<void> {
    // Requests of the same turn share the round.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const isAlone = this.#returning.size === 0
      if (!isAlone) await setTimeout(GATHER_MS)
      const socket = await this.#freeSocket()
      const deletions = this.#waiting
      this.#waiting = []
      this.rounds++
      let returned = false
      const deletion = this.#delete(socket, deletions)
        .then((failures) => settle(deletions, failures))
        .catch((error) => fail(deletions, error))
        .finally(() => {
          returned = true
          this.#free.push(socket)
          this.#returning.delete(deletion)
        })
      this.#returning.add(deletion)
      await this.#watch(deletions, isAlone ? EAGER_MS : 0, () => returned)
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

  /**
   * Resolves deletions whose link has left the lists, until the request has ended. All links of a group leave together.
   */
  async #watch(deletions: readonly Deletion[], eagerMs: number, ended: () => boolean): Promise<void> {
    await pollUntil(() => {
      if (ended()) return true
      for (const one of deletions) {
        if (one.gone) continue
        if (this.#socket.nameOf(one.index) !== undefined) return false
        one.gone = true
        one.done(undefined)
      }
      return true
    }, eagerMs)
  }

  async #delete(socket: LinkSocket, deletions: readonly Deletion[]): Promise<readonly Failure[]> {
    const deleteEach = () => socket.send(deletions.map(({ link }) => deleteLink(link.name)))
    if (deletions.length === 1) return deleteEach()
    const failures = await socket.send([
      ...deletions.map(({ link }) => moveToGroup(link.name, DOOMED_GROUP)),
      deleteGroup(DOOMED_GROUP)
    ])
    const group = failures.at(-1)
    if (group === undefined || errnoName(group.errno) === 'ENODEV') return failures.slice(0, -1)
    // One link that can't be deleted (a physical device) fails its group: delete each alone, and move the remaining
    // ones back.
    const alone = await deleteEach()
    const staying = deletions.filter((_, at) => alone[at] !== undefined && errnoName(alone[at].errno) !== 'ENODEV')
    await socket.send(staying.map(({ link }) => moveToGroup(link.name, link.group ?? 0)))
    return alone
  }
}

function fail(deletions: readonly Deletion[], error: unknown): void {
  for (const one of deletions) if (!one.gone) one.done(toError(error))
}

function settle(deletions: readonly Deletion[], failures: readonly Failure[]): void {
  for (const [at, one] of deletions.entries()) {
    if (one.gone) continue
    const failure = failures[at]
    const fine = failure === undefined || errnoName(failure.errno) === 'ENODEV'
    one.done(fine ? undefined : refused('remove', one.link, failure.errno, failure.sentence))
  }
}
