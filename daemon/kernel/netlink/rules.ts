// Reads the policy rules of a family (ip-rule(8)): which table is looked up for which packets.
import { type Family, formatPrefix, ipFromBytes } from '../../../ipam/address.ts'
import type { PolicyRule } from '../../state/kernel.ts'
import { Attributes, type Message, MessageWriter, NLM_F } from './message.ts'
import type { RequestSocket } from './request-socket.ts'
import { afOf, FR_ACT_TO_TBL, FRA, RTM } from './uapi.ts'

/** Octets of struct fib_rule_hdr: family, lengths, TOS, table, two reserved, action, flags. */
const FIXED = 12
const NAMES: ReadonlyMap<number, string> = new Map([
  [255, 'local'],
  [254, 'main'],
  [253, 'default']
])

/** In the kernel's order: ascending priority. Errors: KernelError. */
export const dumpRules = (socket: RequestSocket, family: Family): Promise<readonly PolicyRule[]> =>
  socket.collect(
    () => new MessageWriter(RTM.getRule, NLM_F.request).fixed([4, afOf(family)], [4, 0], [4, 0]).done(),
    `the IPv${family} rules`,
    decodeRule
  )

/** `undefined`: a rule of another action than a look-up. Errors: MalformedMessage. */
export function decodeRule({ body }: Message): PolicyRule | undefined {
  const attributes = new Attributes(body, FIXED)
  if (body.readUInt8(7) !== FR_ACT_TO_TBL) return undefined
  const [destinationLength, sourceLength] = [body.readUInt8(1), body.readUInt8(2)]
  const prefix = (bytes: Buffer | undefined, length: number): string | undefined => {
    const ip = bytes && ipFromBytes(bytes)
    return ip && formatPrefix({ ip, length })
  }
  const table = attributes.u32(FRA.table) ?? body.readUInt8(4)
  const priority = attributes.u32(FRA.priority) ?? 0
  const source = prefix(attributes.bytes(FRA.src), sourceLength)
  const destination = prefix(attributes.bytes(FRA.dst), destinationLength)
  const [mark, mask] = [attributes.u32(FRA.fwmark), attributes.u32(FRA.fwmask)]
  const [iif, oif] = [attributes.text(FRA.iifname), attributes.text(FRA.oifname)]
  const words = [
    `${priority}: from ${source ?? 'all'}`,
    destination && `to ${destination}`,
    mark !== undefined &&
      mark !== 0 &&
      `fwmark 0x${mark.toString(16)}${mask === undefined ? '' : `/0x${mask.toString(16)}`}`,
    iif && `iif ${iif}`,
    oif && `oif ${oif}`,
    `lookup ${NAMES.get(table) ?? table}`
  ]
  return { priority, table, text: words.filter(Boolean).join(' ') }
}
