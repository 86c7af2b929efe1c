// The verbs of the loopback plugin: `lo` of a container set up, checked and set down. May run at the same time as the
// pod's network in the same namespace.
import { formatIp, isLoopback } from '../../ipam/address.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import type { AttachmentResult } from '../attachment/result.ts'
import { WeftError } from '../base/error.ts'
import { failureIn, type Sandbox } from '../state/kernel.ts'
import { type Address, addressesIn, type KernelObject, linkNamed, type State } from '../state/object.ts'
import type { PodContext } from './context.ts'
import { openSandbox } from './netns.ts'

const lo: KernelObject = { kind: 'link', name: 'lo', up: true }

/** Errors: LOOPBACK_FOREIGN when `lo` has an address that is not a loopback address. */
export async function addLoopback(context: PodContext, attachment: Attachment): Promise<AttachmentResult> {
  using sandbox = await openSandbox(context, attachment)
  await apply(sandbox, { ...lo, because: attachment.because })
  const addresses = addressesOf(await sandbox.read())
  const foreign = addresses.find(({ prefix }) => !isLoopback(prefix.ip))
  if (foreign !== undefined) {
    throw new WeftError(
      'LOOPBACK_FOREIGN',
      `loopback interface found with non-loopback address ${formatIp(foreign.prefix.ip)}`,
      'remove that address from lo of the container'
    )
  }
  const firsts = ([4, 6] as const).flatMap(
    (family) => addresses.find(({ prefix }) => prefix.ip.family === family) ?? []
  )
  return {
    interfaces: [
      {
        name: 'lo',
        mac: '00:00:00:00:00:00',
        ...(attachment.sandbox === undefined ? {} : { sandbox: attachment.sandbox })
      }
    ],
    addresses: firsts.map(({ prefix }) => ({ interface: 0, prefix })),
    routes: [],
    dns: {}
  }
}

const addressesOf = (state: State): readonly Address[] => addressesIn(state, 'lo')

async function apply(sandbox: Sandbox, object: KernelObject): Promise<void> {
  const failure = failureIn(await sandbox.apply([{ do: 'put', object }]))
  if (failure !== undefined) throw failure.error
}

export async function checkLoopback(context: PodContext, attachment: Attachment): Promise<void> {
  using sandbox = await openSandbox(context, attachment)
  if (linkNamed(await sandbox.read(), 'lo')?.up !== true) {
    throw new WeftError(
      'DIFFERENT',
      `lo is down in ${attachment.sandbox}`,
      'restart the pod, or set lo up in its namespace'
    )
  }
}

/** As in the reference, `lo` is set down; a missing namespace is no error. */
export async function delLoopback(context: PodContext, attachment: Attachment): Promise<void> {
  if (attachment.sandbox === undefined) return
  let open: Sandbox
  try {
    open = await openSandbox(context, attachment)
  } catch {
    return
  }
  using sandbox = open
  await apply(sandbox, { ...lo, up: false } as KernelObject)
}
