// Looks up a process by its id in proc(5): to name the program that changed an object or holds a lock.
import { readFileSync } from 'node:fs'

export type Process = {
  readonly pid: number
  /** At most 15 bytes, as ps(1) shows it (`comm`). */
  readonly name: string
  /** Effective user id. */
  readonly uid: number
}

/**
 * The process with this id, or the one that the thread with this id belongs to: threads have names of their own.
 * `undefined` when it does not exist any more.
 */
export function processOf(id: number): Process | undefined {
  const own = statusOf(id)
  if (own === undefined || own.pid === id) return own
  return statusOf(own.pid) ?? own
}

/** All fields from one read, so that none is of a process that has got the same id since. */
function statusOf(id: number): Process | undefined {
  let text: string
  try {
    text = readFileSync(`/proc/${id}/status`, 'utf8')
  } catch {
    return undefined
  }
  const field = (name: string) => new RegExp(`^${name}:\\t(.*)$`, 'm').exec(text)?.[1] ?? ''
  return { pid: Number(field('Tgid')), name: field('Name'), uid: Number(field('Uid').split('\t')[1]) }
}
