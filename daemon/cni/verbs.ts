// The code for each verb by the attachment's kind of interface, and the conversion of results from and to CNI's shape.
import type { Attachment } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import type { AttachmentResult } from '../attachment/result.ts'
import { WeftError } from '../base/error.ts'
import { add } from '../pod/add.ts'
import { addChained, checkChained, delChained, gcChained } from '../pod/chained/verbs.ts'
import { check } from '../pod/check.ts'
import type { PodContext } from '../pod/context.ts'
import { del } from '../pod/del.ts'
import { gc, type Listed } from '../pod/gc.ts'
import { addAddresses, checkConfigured, checkReserved, delAddresses, gcAddresses } from '../pod/ipam-only.ts'
import { addLoopback, checkLoopback, delLoopback } from '../pod/loopback.ts'
import { addMacvlan, checkMacvlan, delMacvlan, prepareMacvlan, statusMacvlan } from '../pod/macvlan.ts'
import { status } from '../pod/status.ts'
import { fromCni, toCni, withChanges } from './result.ts'

/**
 * `previous` is the call's prevResult; those that need it fail with PREVIOUS_MISSING. GC and STATUS take any attachment
 * of the network.
 */
export type Verbs = {
  /**
   * Makes what a third party's IPAM plugin may need before it is called; a second call is no error. What it made is
   * removed by `del`.
   */
  readonly prepare?: () => Promise<void>
  readonly add: (previous: Result | undefined) => Promise<Result>
  readonly check: (previous: Result | undefined) => Promise<void>
  readonly del: () => Promise<void>
  readonly gc: (valid: readonly Listed[]) => Promise<void>
  readonly status: () => Promise<void>
}

export function verbsOf(context: PodContext, attachment: Attachment): Verbs {
  const { interface: config } = attachment
  switch (config.kind) {
    case 'veth': {
      const veth = { ...attachment, interface: config }
      return {
        add: async () => toCni(await add(context, veth)),
        check: async (previous) => check(context, veth, resultOfAdd(previous)),
        del: () => del(context, veth),
        gc: (valid) => gc(context, veth, valid),
        status: () => status(context, veth)
      }
    }
    case 'macvlan': {
      const macvlan = { ...attachment, interface: config }
      return {
        prepare: () => prepareMacvlan(context, macvlan),
        add: async () => toCni(await addMacvlan(context, macvlan)),
        check: async (previous) => checkMacvlan(context, macvlan, resultOfAdd(previous)),
        del: () => delMacvlan(context, macvlan),
        gc: (valid) => gc(context, macvlan, valid),
        status: async () => {
          statusMacvlan(context, macvlan)
          await status(context, macvlan)
        }
      }
    }
    case 'none':
      return {
        add: async () => toCni(await addAddresses(context, attachment)),
        check: async (previous) =>
          attachment.ipam === undefined
            ? checkConfigured(attachment, resultOfAdd(previous))
            : checkReserved(context, attachment),
        del: () => delAddresses(context, attachment),
        gc: (valid) => gcAddresses(context, attachment, valid),
        status: () => status(context, attachment)
      }
    case 'existing': {
      const chained = { ...attachment, interface: config }
      return {
        add: async (previous) => {
          if (previous === undefined) throw mustBeChained(attachment)
          return withChanges(previous, attachment.ifname, await addChained(context, chained, fromCni(previous)))
        },
        check: async (previous) => {
          if (previous === undefined) throw mustBeChained(attachment)
          await checkChained(context, chained, fromCni(previous))
        },
        del: () => delChained(context, chained),
        gc: (valid) => gcChained(context, chained, valid),
        status: nothing
      }
    }
    case 'loopback':
      return {
        add: async (previous) => {
          const result = await addLoopback(context, attachment)
          return previous ?? toCni(result)
        },
        check: () => checkLoopback(context, attachment),
        del: () => delLoopback(context, attachment),
        gc: nothing,
        status: nothing
      }
  }
}

const nothing = async (): Promise<void> => undefined

/** CHECK compares with what its ADD has reported. Errors: PREVIOUS_MISSING. */
function resultOfAdd(previous: Result | undefined): AttachmentResult {
  if (previous !== undefined) return fromCni(previous)
  throw new WeftError(
    'PREVIOUS_MISSING',
    'Required prevResult missing',
    'the runtime must pass CHECK the result of the ADD'
  )
}

const mustBeChained = ({ plugin }: Attachment): WeftError =>
  new WeftError(
    'PREVIOUS_MISSING',
    `Required prevResult missing: ${plugin} must be called as a chained plugin`,
    `chain ${plugin} behind the plugin that makes the interface, in "plugins" of a .conflist`
  )
