// The PID namespace of a lab: its first process lives as long as the process that made the lab, and the kernel ends all
// others with it, whatever they did to their environment, session or namespaces (pid_namespaces(7)).
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { errno } from '../../daemon/os/foreign-function.ts'
import { CallFailed, prototypes } from '../../daemon/os/libc.ts'

/** <linux/sched.h> */
const CLONE_NEWPID = 0x20000000

/**
 * Reads a pipe from the process that made the lab until its end, which comes however that process ends. Ignoring
 * SIGCHLD lets the kernel reap orphans. cat instead of the shell's read, which gives up when a container runtime's
 * freezer interrupts it.
 */
const FIRST_PROCESS = "trap '' CHLD; exec cat"

function checked(call: string, result: number): void {
  if (result < 0) throw new CallFailed(call, errno())
}

/** Runs `start` with the calling thread's next children in another PID namespace, and comes back. */
function withChildrenIn<T>(enter: () => void, start: () => T): T {
  const own = openSync('/proc/self/ns/pid', 'r')
  try {
    enter()
    return start()
  } finally {
    checked('setns', prototypes.setns(own, CLONE_NEWPID))
    closeSync(own)
  }
}

export type Spawn = typeof spawn

export class PidNamespace {
  readonly #first: ChildProcess
  readonly #fd: number
  readonly #children = new Set<ChildProcess>()
  readonly #ended: Promise<void>
  #open = true

  /** Needs root. Errors: CallFailed. */
  constructor() {
    this.#first = withChildrenIn(
      () => checked('unshare', prototypes.unshare(CLONE_NEWPID)),
      () => spawn('sh', ['-c', FIRST_PROCESS], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
    )
    this.#ended = new Promise((resolve) => this.#first.once('exit', () => resolve()))
    this.#fd = openSync(`/proc/${this.pid}/ns/pid`, 'r')
    // Neither keeps this process running; the pipe's end is what tells the shell that this process has ended.
    this.#first.unref()
    ;(this.#first.stdin as unknown as { unref(): void }).unref()
  }

  /** Of the first process, in this process's namespace. */
  get pid(): number {
    if (this.#first.pid === undefined) throw new Error('the first process of a PID namespace was not started')
    return this.#first.pid
  }

  /** spawn() of node:child_process, inside. The child's pid is the one that this process sees. */
  readonly spawn = ((file: string, args: readonly string[], options: SpawnOptions): ChildProcess => {
    if (!this.#open) throw new Error(`cannot start ${file}: the lab has ended`)
    const child = withChildrenIn(
      () => checked('setns', prototypes.setns(this.#fd, CLONE_NEWPID)),
      () => spawn(file, args, options)
    )
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    return child
  }) as Spawn

  /** Everything stays when this process ends. */
  keep(): void {
    // It holds the pipe's other end, so that the end never comes.
    const { stdin } = this.#first
    if (stdin === null) throw new Error('the first process has no pipe')
    this.spawn('sleep', ['infinity'], { stdio: ['ignore', 'ignore', 'ignore', stdin], detached: true }).unref()
  }

  /** Ends every process at once (SIGKILL). They are gone when `ended` resolves, which needs the event loop. */
  end(): void {
    if (!this.#open) return
    this.#open = false
    closeSync(this.#fd)
    this.#first.ref()
    this.#first.kill('SIGKILL')
    // The kernel ends those as well; this only says so before it gets to it.
    for (const child of this.#children) child.kill('SIGKILL')
  }

  /** The first process is the last one to be reaped. */
  get ended(): Promise<void> {
    return this.#ended
  }
}

/** The pid of a process in its own PID namespace, by the one that this process sees; proc_pid_status(5). */
export function pidInside(pid: number): number {
  const line = /^NSpid:(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  const inside = Number(line?.trim().split(/\s+/).at(-1))
  if (!Number.isInteger(inside) || inside === 0) throw new Error(`no pid inside its namespace for process ${pid}`)
  return inside
}
