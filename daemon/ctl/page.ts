// `weftctl page`: serves a page on 127.0.0.1 that shows which nodes reach each other, which are sick, what other programs
// changed, and the path from a pod to a pod.
import { reasonOf, WeftError } from '../base/error.ts'
import { printable, printableJson } from '../base/printable.ts'
import type { Asking, Lasting } from './command.ts'
import { documentOf } from './page/document.ts'
import type { Asked } from './page/facts.ts'
import { type PageServer, servePage } from './page/server.ts'
import { pageSources } from './page/sources.ts'
import { viewOf } from './page/view.ts'
import type { View } from './page/view-types.ts'
import { askCluster, askNode } from './page-answers.ts'
import { followPath } from './page-path.ts'

/** Milliseconds for which answers are shown before weftd is asked again, however many windows are open. */
const FRESH = 2_000

export const page: Lasting = {
  about:
    'serve a page for a browser on this machine: paths between nodes, nodes and what is wrong with them, changes by other programs, the path from a pod to a pod; kubectl weft page asks every node; --json prints the answers instead',
  exits: '0 ended by Ctrl-C, or printed',
  async run(asking) {
    const round = () => askAll(asking)
    if (asking.json) {
      const answers = asking.kubectl === undefined ? await askNode(asking.ask) : await round()
      asking.out(`${printableJson(JSON.stringify(answers, null, 2))}\n`)
      return 0
    }
    // What makes the page useless (no access, no kubectl) is an error here, not on the page.
    const rounds = new Rounds(round, await round())
    const signal = asking.stopped()
    await using server = await started(asking.port, {
      view: () => rounds.view(asking.kubectl !== undefined),
      path: (query) => followPath(asking, rounds.last, query.get('from') ?? '', query.get('to') ?? '')
    })
    asking.out(`open ${server.url} in a browser on this machine; Ctrl-C ends it\n`)
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      else signal.addEventListener('abort', () => resolve(), { once: true })
    })
    return 0
  }
}

/** Errors: as `askNode` and `askCluster`. */
const askAll = async ({ ask, kubectl }: Asking): Promise<readonly Asked[]> =>
  kubectl === undefined ? [{ name: '', facts: await askNode(ask) }] : askCluster(kubectl)

async function started(port: number, answers: Parameters<typeof servePage>[0]['answers']): Promise<PageServer> {
  try {
    return await servePage({ document: documentOf(pageSources()), port, answers })
  } catch (cause) {
    throw new WeftError(
      'PAGE_PORT_UNUSABLE',
      `weftctl page can't listen on port ${port} of 127.0.0.1: ${reasonOf(cause)}`,
      'select another port with --port, or leave it out for a free one',
      { cause }
    )
  }
}

/** Asks again when a window wants to know and the last answers are old; all that ask meanwhile wait for the same. */
class Rounds {
  readonly #ask: () => Promise<readonly Asked[]>
  #last: readonly Asked[]
  #at = new Date()
  #running: Promise<void> | undefined
  #isSeen = false
  /** The user opens the URL some seconds after it was printed. */
  #freshUntil = performance.now() + 5 * FRESH

  constructor(ask: () => Promise<readonly Asked[]>, first: readonly Asked[]) {
    this.#ask = ask
    this.#last = first
  }

  get last(): readonly Asked[] {
    return this.#last
  }

  async view(isCluster: boolean): Promise<View> {
    if (performance.now() > this.#freshUntil) {
      this.#running ??= this.#again().finally(() => (this.#running = undefined))
      await this.#running
    } else if (!this.#isSeen) this.#freshUntil = performance.now() + FRESH
    this.#isSeen = true
    return viewOf(this.#last, this.#at.toISOString(), isCluster)
  }

  async #again(): Promise<void> {
    const start = performance.now()
    this.#last = await this.#ask().catch((error) => [{ name: '', failure: printable(reasonOf(error)) }])
    this.#at = new Date()
    // A round of a large cluster takes long: half of the time at most is spent on asking.
    const end = performance.now()
    this.#freshUntil = end + Math.max(FRESH, end - start)
  }
}
