// Which code serves a verb: by the kind of interface that an attachment asks for.
import type { Attachment } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { add } from '../pod/add.ts'
import { addChained, checkChained, delChained, gcChained } from '../pod/chained/verbs.ts'
import { check } from '../pod/check.ts'
import type { PodContext } from '../pod/context.ts'
import { del } from '../pod/del.ts'
import { gc, type Listed } from '../pod/gc.ts'
import { addAddresses, checkAddresses, delAddresses, gcAddresses } from '../pod/ipam-only.ts'
import { addLoopback, checkLoopback, delLoopback } from '../pod/loopback.ts'
import { addMacvlan, checkMacvlan, delMacvlan, prepareMacvlan, statusMacvlan } from '../pod/macvlan.ts'
import { status } from '../pod/status.ts'

/** `previous` is the call's prevResult. GC and STATUS take any attachment of the network. */
export type Verbs = {
  /** Makes what an IPAM plugin of somebody else may need before it is asked; once more is no error. What it made goes by `del`. */
  readonly prepare?: () => Promise<void>
  readonly add: (previous: Result | undefined) => Promise<Result>
  readonly check: (previous: Result | undefined) => Promise<void>
  readonly del: () => Promise<void>
  readonly gc: (valid: readonly Listed[]) => Promise<void>
  readonly status: () => Promise<void>
}

export function verbsOf(context: PodContext, attachment: Attachment): Verbs {
  const wish = attachment.interface
  switch (wish.kind) {
    case 'veth': {
      const veth = { ...attachment, interface: wish }
      return {
        add: () => add(context, veth),
        check: (previous) => check(context, veth, previous),
        del: () => del(context, veth),
        gc: (valid) => gc(context, veth, valid),
        status: () => status(context, veth)
      }
    }
    case 'macvlan': {
      const macvlan = { ...attachment, interface: wish }
      return {
        prepare: () => prepareMacvlan(context, macvlan),
        add: () => addMacvlan(context, macvlan),
        check: (previous) => checkMacvlan(context, macvlan, previous),
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
        add: () => addAddresses(context, attachment),
        check: (previous) => checkAddresses(context, attachment, previous),
        del: () => delAddresses(context, attachment),
        gc: (valid) => gcAddresses(context, attachment, valid),
        status: () => status(context, attachment)
      }
    case 'existing': {
      const chained = { ...attachment, interface: wish }
      return {
        add: (previous) => addChained(context, chained, previous),
        check: (previous) => checkChained(context, chained, previous),
        del: () => delChained(context, chained),
        gc: (valid) => gcChained(context, chained, valid),
        status: nothing
      }
    }
    case 'loopback':
      return {
        add: (previous) => addLoopback(context, attachment, previous),
        check: () => checkLoopback(context, attachment),
        del: () => delLoopback(context, attachment),
        gc: nothing,
        status: nothing
      }
  }
}

const nothing = async (): Promise<void> => undefined
