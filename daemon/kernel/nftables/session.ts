// Runs nft commands through one context of libnftables, one at a time, and parses its error output.
import { readdirSync, readlinkSync } from 'node:fs'
import { SerialQueue } from '../../base/serial-queue.ts'
import { netlinkPort } from '../../os/libc.ts'
import { NFT_OUTPUT, NftContext } from '../../os/libnftables.ts'

/**
 * What `list` prints. `json`: libnftables-json(5); `text`: as `nft -a list`. Neither has packet counters, so equal
 * rulesets print alike.
 */
export type OutputForm = 'json' | 'text'

/** libnftables' error message for one command, and the column of the error (-1: unknown). */
export type NftComplaint = { readonly words: string; readonly at: number }
export type NftResult =
  | { readonly done: true; readonly output: string }
  | { readonly done: false; readonly complaints: readonly NftComplaint[] }

/** Runs commands in one transaction: one line, separated by `; `, so that errors have a column. */
export type RunNft = (commands: string, form?: OutputForm) => Promise<NftResult>

const FLAGS: Readonly<Record<OutputForm, number>> = {
  json: NFT_OUTPUT.stateless | NFT_OUTPUT.json,
  text: NFT_OUTPUT.stateless | NFT_OUTPUT.handle
}

/** This process's sockets: descriptors by inode. */
function sockets(): ReadonlyMap<string, number> {
  const found = new Map<string, number>()
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`)
      if (target.startsWith('socket:')) found.set(target, Number(fd))
    } catch {
      // The directory's own descriptor is closed by now.
    }
  }
  return found
}

/** One block of the error output: the message, the line of input, and carets under the fault. */
const complaint = /^Error: (.*)\n(?:.*\n(\s*)[~^][~^ ]*$)?/gm

function complaintsOf(text: string): readonly NftComplaint[] {
  const found = [...text.matchAll(complaint)].map(([, words = '', indent]) => ({
    words,
    at: indent === undefined ? -1 : indent.length
  }))
  return found.length > 0 ? found : [{ words: text.trim() || 'no reason given', at: -1 }]
}

/** A context of libnftables in the network namespace of the calling thread. */
export class NftSession implements Disposable {
  readonly #context: NftContext
  readonly #socket: number | undefined
  readonly #queue = new SerialQueue()
  #closed = false

  /** Errors: NFTABLES_MISSING. */
  constructor(file = 'libnftables.so.1') {
    const before = sockets()
    this.#context = new NftContext(file)
    this.#socket = [...sockets()].find(([inode]) => !before.has(inode))?.[1]
  }

  /** The netlink port id in notifications of our own transactions; `undefined` until the first command was sent. */
  get port(): number | undefined {
    const port = this.#socket === undefined ? undefined : netlinkPort(this.#socket)
    return port === 0 ? undefined : port
  }

  /** Lets `work` run commands once all earlier work is done, with no other commands in between. */
  exclusive<T>(work: (run: RunNft) => Promise<T>): Promise<T> {
    return this.#queue.take(async () => {
      if (this.#closed) throw new Error('libnftables was called after its context had been freed')
      return work((commands, form = 'json') => this.#run(commands, form))
    })
  }

  async #run(commands: string, form: OutputForm): Promise<NftResult> {
    const { status, output, errors } = await this.#context.run(commands, FLAGS[form])
    return status === 0 ? { done: true, output } : { done: false, complaints: complaintsOf(errors) }
  }

  /** Frees the context at once, or when the running work has ended; queued work fails. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    const isIdle = this.#queue.idle
    this.#closed = true
    if (isIdle) this.#context[Symbol.dispose]()
    else void this.#queue.take(async () => this.#context[Symbol.dispose]())
  }
}
