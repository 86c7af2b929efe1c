// Encodes and decodes the messages of the generic family `fou` (<linux/fou.h>).
import { ipBytes, ipFromBytes } from '../../../ipam/address.ts'
import type { FouPort } from '../../state/ip-tunnel.ts'
import { type GenericFamily, genericAttributes, genericRequest } from './generic.ts'
import type { Message } from './message.ts'
import { AF_INET6, afOf } from './uapi.ts'

/** The family's name, and that of the module that has it. */
export const FOU = 'fou'

const FOU_CMD = { add: 1, delete: 2, get: 3 } as const
const FOU_ATTR = { port: 1, af: 2, ipProtocol: 3, type: 4, remoteChecksumNoPartial: 5, local4: 6, local6: 7 } as const
const FOU_ENCAP_DIRECT = 1
const NONE = new Uint8Array(0)

export const addFou = (family: GenericFamily, port: FouPort): Buffer =>
  place(family, FOU_CMD.add, port)
    .u8(FOU_ATTR.ipProtocol, port.protocol)
    .u8(FOU_ATTR.type, FOU_ENCAP_DIRECT)
    // Weft's mark (state/ip-tunnel.ts).
    .flag(FOU_ATTR.remoteChecksumNoPartial)
    .done()

/** The kernel finds the port by its number, family and local address. */
export const deleteFou = (family: GenericFamily, port: FouPort): Buffer => place(family, FOU_CMD.delete, port).done()

export const listFou = (family: GenericFamily): Buffer => genericRequest(family, FOU_CMD.get).done()

function place(family: GenericFamily, command: number, { port, local }: FouPort) {
  const writer = genericRequest(family, command)
    .port(FOU_ATTR.port, port)
    .u8(FOU_ATTR.af, afOf(local?.family ?? 4))
  if (local !== undefined) writer.bytes(local.family === 4 ? FOU_ATTR.local4 : FOU_ATTR.local6, ipBytes(local))
  return writer
}

/** `undefined` for a port of IPv6 or of GUE: Weft makes none. */
export function decodeFou(message: Message): FouPort | undefined {
  const attributes = genericAttributes(message)
  const port = attributes.port(FOU_ATTR.port)
  if (port === undefined || attributes.u8(FOU_ATTR.af) === AF_INET6) return undefined
  if (attributes.u8(FOU_ATTR.type) !== FOU_ENCAP_DIRECT) return undefined
  const local = ipFromBytes(attributes.bytes(FOU_ATTR.local4) ?? NONE)
  return {
    ...{ kind: 'fou', port, protocol: attributes.u8(FOU_ATTR.ipProtocol) ?? 0 },
    // The kernel lists the address of a port on all of them as 0.0.0.0.
    ...(local !== undefined && local.value !== 0n && { local }),
    ...(attributes.has(FOU_ATTR.remoteChecksumNoPartial) && { marked: true })
  }
}
