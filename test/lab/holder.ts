// A process that does nothing but keep a network, a mount and a UTS namespace alive: it is what makes a host of the lab
// exist.
import type { ChildProcess } from 'node:child_process'
import { type PidNamespace, pidInside } from './pid-namespace.ts'

export class Holder {
  readonly pid: number
  /** The same process as those in its PID namespace see it. */
  readonly pidInside: number
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, pid: number) {
    this.#child = child
    this.pid = pid
    this.pidInside = pidInside(pid)
  }

  /** Makes the namespaces, runs `script` (sh -e) inside as their first process, and resolves when it is done. */
  static async start(processes: PidNamespace, name: string, script: string): Promise<Holder> {
    const inside = `mount -t proc proc /proc\n${script}\necho ready\nexec sleep infinity`
    const args = ['--net', '--mount', '--uts', '--propagation', 'private', '--', 'sh', '-e', '-c', inside]
    const child = processes.spawn('unshare', args, { detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text
        if (said.endsWith('ready\n')) resolve()
      })
    }
    child.on('error', reject)
    child.on('exit', (code) => reject(new Error(`the namespaces of ${name} ended with ${code}: ${said}`)))
    await promise
    // It prints no more; without this its pipes would keep this process running.
    child.stdout.destroy()
    child.stderr.destroy()
    child.unref()
    if (child.pid === undefined) throw new Error(`the namespaces of ${name} have no process`)
    return new Holder(child, child.pid)
  }

  /** Ends the process; the namespaces go when nothing else is inside. */
  end(): void {
    this.#child.kill('SIGKILL')
  }
}
