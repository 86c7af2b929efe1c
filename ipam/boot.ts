// Finds the reservations of a network from before the last reboot, also when the clock was wrong at boot and is set
// right later.
import { statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { contentOf, makeDirectory, rewrite } from './files.ts'
import { LARGE_FILE } from './read-file.ts'

/** This boot: the kernel's id, and its begin in milliseconds since 1970 by the present clock, read at each look. */
export type Boot = { readonly id: string; readonly since: number }

/** A reservation's file and its modification time. */
export type Dated = { readonly name: string; readonly mtimeMs: number }

/** With the times of those that still exist. */
export const dated = (directory: string, names: readonly string[]): readonly Dated[] =>
  names.flatMap((name) => {
    const about = statSync(join(directory, name), { throwIfNoEntry: false })
    return about === undefined ? [] : [{ name, mtimeMs: about.mtimeMs }]
  })

/** Milliseconds by which the begin of the boot differs between two looks only when somebody has set the clock. */
const SET = 1_000

/**
 * The note has the id of the boot in which the network was last read, and the reservations that were newer than the
 * clock then: a line each, with name and modification time. Without a note Weft was never here, and all stay.
 */
export class BootNote {
  readonly #path: string
  readonly #boot: Boot
  /** Newer than the clock at the first look, by name: from before the reboot, if the clock was behind. */
  #suspects: ReadonlyMap<string, number> | undefined
  #since = Number.NaN

  constructor(path: string, boot: Boot) {
    this.#path = path
    this.#boot = boot
  }

  /**
   * Whether the reservations must be looked at: at first, and when somebody has set the clock while some are suspect.
   */
  get isDue(): boolean {
    if (this.#suspects === undefined) return true
    return this.#suspects.size > 0 && Math.abs(this.#boot.since - this.#since) > SET
  }

  /**
   * The names of those that were made before this boot. Newer ones stay: flannel may have made them. `files` are all
   * reservations, `now` is in milliseconds since 1970. Errors: those of the note; it is then due again.
   */
  old(files: readonly Dated[], now: number): readonly string[] {
    const since = this.#boot.since
    const [id, ...lines] = (contentOf(this.#path, LARGE_FILE) ?? '').trim().split('\n')
    const isFirst = id !== this.#boot.id
    const noted = new Map(isFirst ? [] : lines.map(parsed))
    const candidates = isFirst
      ? id === ''
        ? []
        : files
      : files.filter((file) => noted.get(file.name) === file.mtimeMs)
    const isSuspect = ({ mtimeMs }: Dated) => mtimeMs >= since && (!isFirst || mtimeMs > now + SET)
    const suspects = new Map(candidates.filter(isSuspect).map(({ name, mtimeMs }) => [name, mtimeMs]))
    if (isFirst || suspects.size !== noted.size) this.#write(suspects)
    this.#suspects = suspects
    this.#since = since
    return candidates.filter(({ mtimeMs }) => mtimeMs < since).map(({ name }) => name)
  }

  #write(suspects: ReadonlyMap<string, number>): void {
    makeDirectory(dirname(this.#path), 0o755)
    const lines = [...suspects].map(([name, mtimeMs]) => `\n${name} ${mtimeMs}`)
    rewrite(this.#path, `${this.#boot.id}${lines.join('')}`)
  }
}

function parsed(line: string): readonly [name: string, mtimeMs: number] {
  const [name = '', mtimeMs] = line.split(' ')
  return [name, Number(mtimeMs)]
}
