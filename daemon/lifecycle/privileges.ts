// What the kernel refuses to a weftd without the privileges that it needs, as a sentence with a cure.
import { WeftError } from '../base/error.ts'
import { CallFailed } from '../os/libc.ts'

/** Errors: NOT_PRIVILEGED in place of a system call's EPERM. */
export async function withPrivileges<T>(open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (cause) {
    if (!(cause instanceof CallFailed) || cause.errnoName !== 'EPERM') throw cause
    throw new WeftError(
      'NOT_PRIVILEGED',
      `${cause.call} is not permitted: weftd lacks CAP_NET_ADMIN, or has it in a user namespace only`,
      'run it as root of the machine (sudo), in a container with the capabilities NET_ADMIN, NET_RAW and SYS_ADMIN',
      { cause }
    )
  }
}
