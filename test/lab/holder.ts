// A process that does nothing but keep a network, a mount and a UTS namespace alive: it is what makes a host of the lab
// exist.
import { type ChildProcess, spawn } from 'node:child_process'
import { labVariable } from './sweep.ts'

export class Holder {
  readonly pid: number
  readonly #child: ChildProcess

  private constructor(child: ChildProcess, pid: number) {
    this.#child = child
    this.pid = pid
  }

  /** Makes the namespaces, runs `script` (sh -e) inside as their first process, and resolves when it is done. */
  static async start(lab: string, name: string, script: string): Promise<Holder> {
    const inside = `${script}\necho ready\nexec sleep infinity`
    const args = ['--net', '--mount', '--uts', '--propagation', 'private', '--', 'sh', '-e', '-c', inside]
    const child = spawn('unshare', args, {
      env: { ...process.env, [labVariable]: lab },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe']
    })
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
