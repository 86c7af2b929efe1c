// The errors of a directory of reservations that can't be read or written, with what was freed all the same.
import type { Ip } from './address.ts'

/** `owner` is absent for an empty file (its writer was killed between two system calls), and for what is no file. */
export type Reservation = {
  readonly ip: Ip
  readonly owner?: { readonly containerId: string; readonly ifname?: string }
}

/** The directory can't be read or written; the message names it, the cause has the system's code. */
export class ReservationsUnusable extends Error {
  override readonly name = 'ReservationsUnusable'
  readonly directory: string

  constructor(directory: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    super(`the reservations in ${directory} can't be read or written: ${reason}`, { cause })
    this.directory = directory
  }

  /** What was freed all the same. */
  get freed(): readonly Reservation[] {
    return this.cause instanceof NotAllRemoved ? this.cause.removed : []
  }
}

/** Names that many files; more would fill the message. */
const MOST_NAMED = 10

export class NotAllRemoved extends AggregateError {
  readonly removed: readonly Reservation[]

  constructor(errors: readonly Error[], removed: readonly Reservation[]) {
    const named = errors.slice(0, MOST_NAMED).map(({ message }) => message)
    const more = errors.length > MOST_NAMED ? [`and ${errors.length - MOST_NAMED} more`] : []
    super(errors, [...named, ...more].join('; '))
    this.removed = removed
  }
}
