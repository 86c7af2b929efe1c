// Reads and changes the FOU ports of this host. The kernel notifies no change of them.
import { deviceIndex, errnoNumber } from '../os/libc.ts'
import type { Change } from '../state/difference.ts'
import type { FouPort } from '../state/ip-tunnel.ts'
import type { Outcome } from '../state/kernel.ts'
import { refused } from './netlink/error.ts'
import { addFou, decodeFou, deleteFou, FOU, listFou } from './netlink/fou.ts'
import { GenericFamilies, type GenericFamily, listedFamily, NETLINK_GENERIC } from './netlink/generic.ts'
import type { Lane } from './netlink/lane.ts'
import { RequestSocket } from './netlink/request-socket.ts'

const ENOENT = errnoNumber('ENOENT')

export class FouPorts implements Disposable {
  readonly #lane: Lane
  #opened: { readonly socket: RequestSocket; readonly families: GenericFamilies } | undefined

  constructor(lane: Lane) {
    this.#lane = lane
  }

  /** Without loading the module: as long as it is not there, there are no ports. Errors: KernelError. */
  async read(): Promise<readonly FouPort[]> {
    const { socket } = this.#open()
    const family = await listedFamily(socket, FOU)
    return family === undefined ? [] : socket.collect(() => listFou(family), 'the FOU ports', decodeFou)
  }

  /** One outcome for each change, in their order. Loads the module. */
  async apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    const { socket, families } = this.#open()
    const family = await findFou(socket, families)
    const outcomes: Outcome[] = []
    for (const change of changes) outcomes.push(await applyOne(change, socket, family))
    // After the module was loaded again the family has another number.
    if (outcomes.some(({ error }) => error !== undefined)) families.forget(FOU)
    return outcomes
  }

  /** Opened on first use: most nodes never need it. */
  #open() {
    if (this.#opened === undefined) {
      const socket = new RequestSocket(this.#lane, NETLINK_GENERIC)
      this.#opened = { socket, families: new GenericFamilies(socket) }
    }
    return this.#opened
  }

  [Symbol.dispose](): void {
    this.#opened?.socket[Symbol.dispose]()
  }
}

/**
 * The module has no alias for its family, which the kernel could load it by; but the kernel loads the module whose name
 * is that of a device that does not exist, when it is asked for that device (dev_load).
 */
export async function findFou(socket: RequestSocket, families: GenericFamilies): Promise<GenericFamily | undefined> {
  const known = await families.find(FOU)
  if (known !== undefined) return known
  deviceIndex(socket.fd, FOU)
  return families.find(FOU)
}

async function applyOne(change: Change, socket: RequestSocket, family: GenericFamily | undefined): Promise<Outcome> {
  const { object } = change
  if (object.kind !== 'fou') return { change }
  const isRemoval = change.do === 'remove'
  if (family === undefined)
    return isRemoval ? { change } : { change, error: refused('add', object, ENOENT, 'it has no family fou') }
  const [failure] = await socket.send([isRemoval ? deleteFou(family, object) : addFou(family, object)])
  if (failure === undefined || (isRemoval && failure.errno === ENOENT)) return { change }
  return { change, error: refused(isRemoval ? 'remove' : 'add', object, failure.errno, failure.sentence) }
}
