// Makes TUN devices, for which rtnetlink has no message; it changes and removes them as others.
import { CallFailed, errnoNumber } from '../os/libc.ts'
import { makeTunDevice } from '../os/tun.ts'
import type { Change } from '../state/difference.ts'
import { insideNew } from './namespace.ts'
import { refused } from './netlink/error.ts'
import type { Failure } from './netlink/request-socket.ts'

/** Makes the device if this puts a new one; its other fields are set as of any link. Errors: KernelError. */
export function makeTun({ do: what, object, instead }: Change): void {
  if (what === 'remove' || instead !== undefined || object.kind !== 'link' || object.form?.type !== 'tun') return
  try {
    makeTunDevice(object.name)
  } catch (error) {
    if (error instanceof CallFailed) throw refused('add', object, error.errno)
    const { code, message } = error as NodeJS.ErrnoException
    throw refused('add', object, errnoNumber(code ?? ''), message)
  }
}

/** What the kernel says to a TUN device in an empty network namespace. */
export function tryTun(name: string): Failure {
  try {
    insideNew(() => makeTunDevice(name))
    return undefined
  } catch (error) {
    if (error instanceof CallFailed) return { errno: error.errno }
    // Of open(2).
    const { code, message } = error as NodeJS.ErrnoException
    return { errno: errnoNumber(code ?? ''), sentence: message }
  }
}
