// Which code serves a verb: by the kind of interface that an attachment asks for.
import type { Attachment } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { add } from '../pod/add.ts'
import { addChained, checkChained, delChained, gcChained } from '../pod/chained/verbs.ts'
import { check } from '../pod/check.ts'
import type { PodSurroundings } from '../pod/context.ts'
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

export function verbsOf(around: PodSurroundings, attachment: Attachment): Verbs {
  const wish = attachment.interface
  switch (wish.kind) {
    case 'veth': {
      const veth = { ...attachment, interface: wish }
      return {
        add: () => add(around, veth),
        check: (previous) => check(around, veth, previous),
        del: () => del(around, veth),
        gc: (valid) => gc(around, veth, valid),
        status: () => status(around, veth)
      }
    }
    case 'macvlan': {
      const macvlan = { ...attachment, interface: wish }
      return {
        prepare: () => prepareMacvlan(around, macvlan),
        add: () => addMacvlan(around, macvlan),
        check: (previous) => checkMacvlan(around, macvlan, previous),
        del: () => delMacvlan(around, macvlan),
        gc: (valid) => gc(around, macvlan, valid),
        status: async () => {
          statusMacvlan(around, macvlan)
          await status(around, macvlan)
        }
      }
    }
    case 'none':
      return {
        add: () => addAddresses(around, attachment),
        check: (previous) => checkAddresses(around, attachment, previous),
        del: () => delAddresses(around, attachment),
        gc: (valid) => gcAddresses(around, attachment, valid),
        status: () => status(around, attachment)
      }
    case 'existing': {
      const chained = { ...attachment, interface: wish }
      return {
        add: (previous) => addChained(around, chained, previous),
        check: (previous) => checkChained(around, chained, previous),
        del: () => delChained(around, chained),
        gc: (valid) => gcChained(around, chained, valid),
        status: nothing
      }
    }
    case 'loopback':
      return {
        add: (previous) => addLoopback(around, attachment, previous),
        check: () => checkLoopback(around, attachment),
        del: () => delLoopback(around, attachment),
        gc: nothing,
        status: nothing
      }
  }
}

const nothing = async (): Promise<void> => undefined
