// libnftables through koffi: one context, one command at a time, its answers and its complaints as values.
import { readdirSync, readlinkSync } from 'node:fs'
import koffi, { type KoffiFunc } from 'koffi'
import { reasonOf, WeftError } from '../../base/error.ts'
import { netlinkPort } from '../../os/libc.ts'

/** What `list` prints. `json`: libnftables-json(5); `text`: as `nft -a list`. Neither has packet counters, so equal rulesets print alike. */
export type OutputForm = 'json' | 'text'

/** libnftables' own words about one command and where in the text that command's fault is (-1: it did not say). */
export type NftComplaint = { readonly words: string; readonly at: number }
export type NftResult =
  | { readonly done: true; readonly output: string }
  | { readonly done: false; readonly complaints: readonly NftComplaint[] }

/** Runs commands in one transaction: one line, separated by `; `, so that complaints have a place. */
export type RunNft = (commands: string, form?: OutputForm) => Promise<NftResult>

/** <nftables/libnftables.h>: NFT_CTX_OUTPUT_STATELESS, _HANDLE, _JSON. */
const flags: Readonly<Record<OutputForm, number>> = { json: 4 | 16, text: 4 | 8 }

type Functions = {
  readonly create: (flags: number) => unknown
  readonly free: (context: unknown) => void
  readonly bufferOutput: (context: unknown) => number
  readonly bufferErrors: (context: unknown) => number
  readonly output: (context: unknown) => string
  readonly errors: (context: unknown) => string
  readonly setFlags: (context: unknown, flags: number) => void
  readonly run: KoffiFunc<(context: unknown, commands: string) => number>
}

/** Errors: NFTABLES_MISSING when the library is not there. */
function load(file: string): Functions {
  try {
    const library = koffi.load(file)
    return {
      create: library.func('void *nft_ctx_new(uint32_t flags)'),
      free: library.func('void nft_ctx_free(void *ctx)'),
      bufferOutput: library.func('int nft_ctx_buffer_output(void *ctx)'),
      bufferErrors: library.func('int nft_ctx_buffer_error(void *ctx)'),
      output: library.func('const char *nft_ctx_get_output_buffer(void *ctx)'),
      errors: library.func('const char *nft_ctx_get_error_buffer(void *ctx)'),
      setFlags: library.func('void nft_ctx_output_set_flags(void *ctx, uint32_t flags)'),
      run: library.func('int nft_run_cmd_from_buffer(void *ctx, const char *buf)')
    }
  } catch (cause) {
    throw missing(file, cause)
  }
}

const missing = (file: string, cause: unknown): WeftError =>
  new WeftError(
    'NFTABLES_MISSING',
    `the library ${file}, through which weftd sets up masquerading and host ports, can't be loaded: ${reasonOf(cause)}`,
    'install the package libnftables1 (Debian, Ubuntu), nftables-libs or nftables (Fedora, RHEL) or nftables (Alpine)',
    { cause }
  )

/** Files of this process that are sockets, by inode, which is never used twice at the same time. */
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

/** A context of libnftables in the daemon's network namespace. Not re-entrant, so its calls wait for each other. */
export class Libnftables implements Disposable {
  readonly #functions: Functions
  readonly #context: unknown
  readonly #socket: number | undefined
  #busy = false
  #turn: Promise<unknown> = Promise.resolve()
  #freed = false

  /** Errors: NFTABLES_MISSING. */
  constructor(file = 'libnftables.so.1') {
    this.#functions = load(file)
    const before = sockets()
    const context = this.#functions.create(0)
    if (context === null)
      throw new WeftError('NFTABLES_MISSING', 'libnftables gives no context', 'check the memory limit of weftd')
    this.#functions.bufferOutput(context)
    this.#functions.bufferErrors(context)
    this.#context = context
    this.#socket = [...sockets()].find(([inode]) => !before.has(inode))?.[1]
  }

  /** The netlink port id that notifications about our own transactions carry; `undefined` until the first command was sent. */
  get port(): number | undefined {
    const port = this.#socket === undefined ? undefined : netlinkPort(this.#socket)
    return port === 0 ? undefined : port
  }

  /** Lets `work` use the context, in the thread pool, through the function it gets, when all earlier work is done and with nobody in between. */
  exclusive<T>(work: (run: RunNft) => Promise<T>): Promise<T> {
    const mine = this.#turn.then(async () => {
      if (this.#freed) throw new Error('libnftables was called after its end')
      this.#busy = true
      try {
        return await work((commands, form = 'json') => this.#start(commands, form))
      } finally {
        this.#busy = false
      }
    })
    this.#turn = mine.catch(() => {})
    return mine
  }

  #start(commands: string, form: OutputForm): Promise<NftResult> {
    this.#functions.setFlags(this.#context, flags[form])
    const { promise, resolve, reject } = Promise.withResolvers<NftResult>()
    this.#functions.run.async(this.#context, commands, (error: unknown, status: number) => {
      if (error) reject(error)
      else resolve(this.#result(status))
    })
    return promise
  }

  #result(status: number): NftResult {
    const errors = this.#functions.errors(this.#context)
    const output = this.#functions.output(this.#context)
    return status === 0 ? { done: true, output } : { done: false, complaints: complaintsOf(errors) }
  }

  /** Ends the context once nothing uses it. */
  [Symbol.dispose](): void {
    const free = (): void => {
      if (!this.#freed) this.#functions.free(this.#context)
      this.#freed = true
    }
    if (this.#busy) this.#turn = this.#turn.then(free)
    else free()
  }
}
