// Makes TUN devices, for which rtnetlink has no message; it changes and removes them as others.
import { CallFailed } from '../os/libc.ts'
import { makeTunDevice } from '../os/tun.ts'
import type { Change } from '../state/difference.ts'
import { refused } from './netlink/error.ts'

/** Makes the device if this puts a new one; its other fields are set as of any link. Errors: KernelError. */
export function makeTun({ do: what, object, instead }: Change): void {
  if (what === 'remove' || instead !== undefined || object.kind !== 'link' || object.form?.type !== 'tun') return
  try {
    makeTunDevice(object.name)
  } catch (error) {
    if (error instanceof CallFailed) throw refused('add', object, error.errno)
    throw error
  }
}
