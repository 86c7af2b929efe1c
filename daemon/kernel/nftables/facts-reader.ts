// Asks the kernel for what rules of other programs refer to: whether a named set holds the pod network, by single
// elements, however large the set is; and at which queues programs listen.
import { readFile } from 'node:fs/promises'
import { ipBytes, type Prefix, rangeOf } from '../../../ipam/address.ts'
import { SerialQueue } from '../../base/serial-queue.ts'
import type { ForeignTable } from '../../state/foreign-chain.ts'
import { type ForeignFacts, neededFacts } from '../../state/foreign-facts.ts'
import { KernelError } from '../netlink/error.ts'
import { NETLINK_NETFILTER, NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { setElements } from './decode-set.ts'
import { NFT_MSG, NFTA_DATA, NFTA_LIST_ELEM, NFTA_SET_ELEM, NFTA_SET_ELEM_LIST } from './uapi.ts'

/** One line for each queue at which a program listens, its number first (net/netfilter/nfnetlink_queue.c). */
const queuesFile = '/proc/net/netfilter/nfnetlink_queue'

type Asked = Pick<ForeignTable, 'family' | 'table'>

export class FactsReader implements Disposable {
  readonly #socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
  readonly #queue = new SerialQueue()

  /** What the tables need; nothing is asked where they need nothing. Whoever asks first is answered first. */
  read(tables: readonly ForeignTable[], networks: readonly Prefix[]): Promise<ForeignFacts> {
    return this.#queue.take(() => this.#read(tables, networks))
  }

  async #read(tables: readonly ForeignTable[], networks: readonly Prefix[]): Promise<ForeignFacts> {
    const needed = neededFacts(tables)
    const sets = new Map<string, readonly Prefix[]>()
    for (const [key, { table, name }] of needed.sets) {
      const held: Prefix[] = []
      for (const network of networks) if (await this.#holds(table, name, network)) held.push(network)
      sets.set(key, held)
    }
    return { queues: needed.queues ? await listenedQueues() : new Set(), sets }
  }

  /** Whether one interval of the set has all addresses of the network. */
  async #holds(table: Asked, set: string, network: Prefix): Promise<boolean> {
    const { first, last } = rangeOf(network)
    const [lowest, highest] = [ipBytes(first), ipBytes(last)]
    const [start, end] = [await this.#start(table, set, lowest), await this.#start(table, set, highest)]
    return start !== undefined && end !== undefined && Buffer.compare(start, end) === 0
  }

  /**
   * Where the interval begins that has this address; `undefined`: it is not in the set, or the set has other keys. In a
   * set without intervals each address is found by itself.
   */
  async #start({ family, table }: Asked, set: string, key: Uint8Array): Promise<Uint8Array | undefined> {
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getElement, NFPROTO[family])
      .text(NFTA_SET_ELEM_LIST.table, table)
      .text(NFTA_SET_ELEM_LIST.set, set)
      .nest(NFTA_SET_ELEM_LIST.elements, (list) =>
        list.nest(NFTA_LIST_ELEM, (element) => {
          element.nest(NFTA_SET_ELEM.key, (datum) => datum.bytes(NFTA_DATA.value, key))
        })
      )
      .done()
    try {
      return setElements(await this.#socket.ask(request, `an element of ${set}`))[0]?.key
    } catch (error) {
      if (error instanceof KernelError) return undefined
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
  }
}

/** Without the kernel's module nobody listens. */
async function listenedQueues(): Promise<ReadonlySet<number>> {
  const text = await readFile(queuesFile, 'utf8').catch(() => '')
  return new Set(text.split('\n').flatMap((line) => /^\s*(\d+)\s/.exec(line)?.slice(1).map(Number) ?? []))
}

/** To see whether something is different from before. */
export const factsText = ({ queues, sets }: ForeignFacts): string =>
  JSON.stringify([
    [...queues].sort(),
    [...sets].map(([key, held]) => [key, held.map(({ ip, length }) => `${ip.value}/${length}`)])
  ])
