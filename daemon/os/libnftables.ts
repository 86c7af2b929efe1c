// Prototypes of libnftables (<nftables/libnftables.h>), and one context of it with buffered output.
import { reasonOf, WeftError } from '../base/error.ts'
import { type Handle, Library, opaqueType } from './foreign-function.ts'

/** NFT_CTX_OUTPUT_STATELESS, _HANDLE, _JSON. */
export const NFT_OUTPUT = { stateless: 4, handle: 8, json: 16 } as const

opaqueType('nft_ctx')

/** Errors: the library or one of its functions is not there. */
export function loadLibnftables(file: string) {
  const library = new Library(file)
  return {
    create: library.declare<(flags: number) => Handle>('nft_ctx *nft_ctx_new(uint32_t flags)'),
    free: library.declare<(ctx: Handle) => void>('void nft_ctx_free(nft_ctx *ctx)'),
    bufferOutput: library.declare<(ctx: Handle) => number>('int nft_ctx_buffer_output(nft_ctx *ctx)'),
    bufferErrors: library.declare<(ctx: Handle) => number>('int nft_ctx_buffer_error(nft_ctx *ctx)'),
    output: library.declare<(ctx: Handle) => string>('const char *nft_ctx_get_output_buffer(nft_ctx *ctx)'),
    errors: library.declare<(ctx: Handle) => string>('const char *nft_ctx_get_error_buffer(nft_ctx *ctx)'),
    setFlags: library.declare<(ctx: Handle, flags: number) => void>(
      'void nft_ctx_output_set_flags(nft_ctx *ctx, uint32_t flags)'
    ),
    run: library.declare<(ctx: Handle, commands: string) => number>(
      'int nft_run_cmd_from_buffer(nft_ctx *ctx, const char *buf)'
    )
  }
}

/** A context in the network namespace of the calling thread. Not re-entrant: one call of `run` at a time. */
export class NftContext implements Disposable {
  readonly #functions: ReturnType<typeof loadLibnftables>
  #context: Handle

  /** Errors: NFTABLES_MISSING. */
  constructor(file: string) {
    try {
      this.#functions = loadLibnftables(file)
    } catch (cause) {
      throw missing(file, cause)
    }
    this.#context = this.#functions.create(0)
    if (this.#context === null)
      throw new WeftError('NFTABLES_MISSING', 'libnftables gives no context', 'check the memory limit of weftd')
    this.#functions.bufferOutput(this.#context)
    this.#functions.bufferErrors(this.#context)
  }

  /** Runs commands in the thread pool; `status` is 0 when all are done. `flags` of NFT_OUTPUT. */
  run(commands: string, flags: number): Promise<{ readonly status: number; output: string; errors: string }> {
    this.#functions.setFlags(this.#context, flags)
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; output: string; errors: string }>()
    this.#functions.run.async(this.#context, commands, (error, status) => {
      if (error) reject(error)
      else
        resolve({
          status,
          output: this.#functions.output(this.#context),
          errors: this.#functions.errors(this.#context)
        })
    })
    return promise
  }

  [Symbol.dispose](): void {
    if (this.#context !== null) this.#functions.free(this.#context)
    this.#context = null
  }
}

const missing = (file: string, cause: unknown): WeftError =>
  new WeftError(
    'NFTABLES_MISSING',
    `the library ${file}, through which weftd sets up masquerading and host ports, can't be loaded: ${reasonOf(cause)}`,
    'install the package libnftables1 (Debian, Ubuntu), nftables-libs or nftables (Fedora, RHEL) or nftables (Alpine)',
    { cause }
  )
