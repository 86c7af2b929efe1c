// A worker process inside a host of the lab that takes one JSON line and answers one JSON line.
import type { ChildProcessByStdio } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import type { Place } from '../lab/lab-scene.ts'

export class LineWorker<Request, Answer> implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>
  readonly #answers: AsyncIterator<string>
  readonly #name: string

  constructor(place: Place, script: URL) {
    this.#name = `${script.pathname} on ${place.name}`
    this.#child = place.spawnChild(process.execPath, [script.pathname], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  /** One request at a time; the caller awaits the answer before the next. */
  async ask(request: Request): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`)
    const { value, done } = await this.#answers.next()
    if (done) throw new Error(`${this.#name} ended without an answer`)
    return JSON.parse(value) as Answer
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.stdin.end()
    if (this.#child.exitCode === null && this.#child.signalCode === null) await gone
  }
}
