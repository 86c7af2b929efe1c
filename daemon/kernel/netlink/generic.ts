// Framing of generic netlink (<linux/genetlink.h>): requests to a family, whose number is looked up by name.
import { KernelError } from './error.ts'
import { Attributes, MalformedMessage, type Message, MessageWriter, NLM_F } from './message.ts'
import type { RequestSocket } from './request-socket.ts'

/** <linux/netlink.h>: the protocol of sockets that generic families are reached by. */
export const NETLINK_GENERIC = 16
/** Octets of struct genlmsghdr: command, version, reserved. */
const GENLMSG = 4

/** The one family with a fixed number, which knows the numbers of the others. */
const CONTROLLER = { id: 16, version: 2, getFamily: 3 } as const
const CTRL_ATTR = { familyId: 1, familyName: 2 } as const

/** A family's number, which differs from boot to boot, and the version of its interface. */
export type GenericFamily = { readonly id: number; readonly version: number }

/** A request with its struct genlmsghdr written. */
export const genericRequest = ({ id, version }: GenericFamily, command: number, flags = 0): MessageWriter =>
  new MessageWriter(id, NLM_F.request | flags).fixed([1, command], [1, version], [2, 0])

/** The attributes of a family's message. */
export const genericAttributes = ({ body }: Message): Attributes => new Attributes(body, GENLMSG)

/** CTRL_CMD_GETFAMILY. */
export const getFamily = (name: string): Buffer =>
  genericRequest(CONTROLLER, CONTROLLER.getFamily).text(CTRL_ATTR.familyName, name).done()

/** Lists all families. */
const listFamilies = (): Buffer => genericRequest(CONTROLLER, CONTROLLER.getFamily).done()

/** A family that the kernel has at this moment: no module is loaded for it. Errors: KernelError. */
export async function listedFamily(
  socket: Pick<RequestSocket, 'collect'>,
  name: string,
  version = 1
): Promise<GenericFamily | undefined> {
  const [id] = await socket.collect(listFamilies, 'the generic netlink families', (message) =>
    genericAttributes(message).text(CTRL_ATTR.familyName) === name ? familyNumber(message) : undefined
  )
  return id === undefined ? undefined : { id, version }
}

/** The number in the answer to getFamily(). Errors: MalformedMessage. */
export function familyNumber(message: Message): number {
  const bytes = genericAttributes(message).bytes(CTRL_ATTR.familyId)
  if (bytes === undefined || bytes.length < 2) throw new MalformedMessage('a generic family without its number')
  return bytes.readUInt16LE(0)
}

/**
 * The families that one socket has asked for, each resolved once. A module's family has another number after the module
 * was unloaded and loaded again; then the kernel answers ENOENT, and `forget` makes the next request ask again.
 */
export class GenericFamilies {
  readonly #socket: Pick<RequestSocket, 'ask'>
  readonly #known = new Map<string, GenericFamily>()

  /** The socket is one of NETLINK_GENERIC. */
  constructor(socket: Pick<RequestSocket, 'ask'>) {
    this.#socket = socket
  }

  /**
   * `undefined` when the kernel has no such family. It loads the module that has an alias for the family first, where
   * there is one. Errors: KernelError.
   */
  async find(name: string, version = 1): Promise<GenericFamily | undefined> {
    const known = this.#known.get(name)
    if (known !== undefined) return known
    try {
      const answer = await this.#socket.ask(getFamily(name), `the generic netlink family ${name}`)
      const family: GenericFamily = { id: familyNumber(answer), version }
      this.#known.set(name, family)
      return family
    } catch (error) {
      if (error instanceof KernelError && error.errnoName === 'ENOENT') return undefined
      throw error
    }
  }

  forget(name: string): void {
    this.#known.delete(name)
  }
}
