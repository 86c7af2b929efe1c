// Reads the rules of one chain by netlink, piece by piece and in bounded memory.
import { SerialQueue } from '../../base/serial-queue.ts'
import { type ForeignRule, isPolicyChain } from '../../state/foreign-chain.ts'
import type { NftFamily } from '../../state/object.ts'
import { KernelError } from '../netlink/error.ts'
import { Attributes, type Message } from '../netlink/message.ts'
import { NETLINK_NETFILTER, NFGENMSG, NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../netlink/nfnetlink.ts'
import { RequestSocket } from '../netlink/request-socket.ts'
import { type DecodedRule, decodeRule } from './decode-rule.ts'
import { type SetElement, setElements } from './decode-set.ts'
import { foreignRule } from './parse-foreign-tables.ts'
import { RuleList } from './rule-list.ts'
import { RuleTemplate } from './rule-template.ts'
import { ruleText } from './rule-text.ts'
import { NFT_MSG, NFTA_CHAIN, NFTA_RULE, NFTA_SET_ELEM_LIST, NFTA_TABLE_NAME } from './uapi.ts'

/** Elements of an anonymous set that are read; a longer one counts as a set that somebody maintains. */
const MOST_ELEMENTS = 1_000

export type Place = { readonly family: NftFamily; readonly table: string; readonly name: string }

export type ChainContent = {
  /** Calls of the chain, by whatever other chains. */
  readonly uses: number
  readonly rules: readonly ForeignRule[]
  /** The chains that it calls, once for each call, apart from those of policy engines. */
  readonly calls: readonly string[]
  /** Whether some rules were not read one by one. */
  readonly isPartial: boolean
}

/** What the kernel was asked for, for the test that it is little. */
export type Asked = { ruleDumps: number; rules: number; elementDumps: number }

export class ChainReader implements Disposable {
  readonly asked: Asked = { ruleDumps: 0, rules: 0, elementDumps: 0 }
  readonly #socket = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)
  /** A socket has one dump at a time, and a rule's sets are read while its chain is. */
  readonly #sets = new RequestSocket(new SerialQueue(), NETLINK_NETFILTER)

  /** `most`: rules that are kept as they are. Errors: KernelError, MalformedMessage. */
  async read({ family, table, name }: Place, most: number): Promise<ChainContent> {
    const list = new RuleList(most)
    const calls: string[] = []
    let count = 0
    let template: RuleTemplate | undefined
    const add = async (message: Message): Promise<boolean> => {
      this.asked.rules++
      count++
      const alike = template?.again(message.body)
      if (alike !== undefined && list.repeat(alike)) return true
      const decoded = decodeRule(message, family, (index) => this.#socket.nameOf(index))
      template = decoded.lookups.length === 0 ? new RuleTemplate(message.body, decoded.variable) : undefined
      const rule = await this.#ruleOf(decoded, family, table)
      for (const { verdict } of rule.branches)
        if ('chain' in verdict && !isPolicyChain(verdict.chain)) calls.push(verdict.chain)
      return list.add(rule)
    }
    this.asked.ruleDumps++
    const uses = await this.#uses({ family, table, name })
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getRule, NFPROTO[family])
      .text(NFTA_TABLE_NAME, table)
      .text(NFTA_RULE.chain, name)
      .done()
    await this.#socket.pieces(request, `the rules of ${family} ${table} ${name}`, async (messages) => {
      for (const message of messages)
        if ((message.type & 255) === NFT_MSG.newRule && !(await add(message))) return false
      return true
    })
    // The kernel counts a chain's rules and the calls of it together.
    return { rules: list.end(), calls, isPartial: list.isPartial, uses: Math.max(0, uses - count) }
  }

  /** One rule as nft prints it; `undefined` if it was deleted meanwhile. */
  async textOf({ family, table, name }: Place, handle: bigint): Promise<string | undefined> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(handle)
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getRule, NFPROTO[family])
      .text(NFTA_TABLE_NAME, table)
      .text(NFTA_RULE.chain, name)
      .bytes(NFTA_RULE.handle, bytes)
      .done()
    try {
      const message = await this.#socket.ask(request, `rule ${handle} of ${family} ${table} ${name}`)
      const decoded = decodeRule(message, family, (index) => this.#socket.nameOf(index))
      await this.#fill(decoded, family, table)
      return ruleText(decoded.json.expr, decoded.json.comment)
    } catch (error) {
      if (error instanceof KernelError && error.errnoName === 'ENOENT') return undefined
      throw error
    }
  }

  /** Rules and calls of a chain; 0 if it was deleted meanwhile. */
  async #uses({ family, table, name }: Place): Promise<number> {
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getChain, NFPROTO[family])
      .text(NFTA_TABLE_NAME, table)
      .text(NFTA_CHAIN.name, name)
      .done()
    try {
      const { body } = await this.#socket.ask(request, `chain ${family} ${table} ${name}`)
      return new Attributes(body, NFGENMSG).u32BigEndian(NFTA_CHAIN.uses) ?? 0
    } catch (error) {
      if (error instanceof KernelError && error.errnoName === 'ENOENT') return 0
      throw error
    }
  }

  async #fill({ lookups }: DecodedRule, family: NftFamily, table: string): Promise<void> {
    for (const { set, fill } of lookups) {
      const elements = await this.#elements(family, table, set)
      if (elements !== undefined) fill(elements)
    }
  }

  async #ruleOf(rule: DecodedRule, family: NftFamily, table: string): Promise<ForeignRule> {
    await this.#fill(rule, family, table)
    const { expr, handle, comment } = rule.json
    return foreignRule(rule.json, new Map([[handle, ruleText(expr, comment)]]))
  }

  /** The elements of an anonymous set, which never change; `undefined` when they are many. */
  async #elements(family: NftFamily, table: string, set: string): Promise<readonly SetElement[] | undefined> {
    const elements: SetElement[] = []
    this.asked.elementDumps++
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.getElement, NFPROTO[family])
      .text(NFTA_SET_ELEM_LIST.table, table)
      .text(NFTA_SET_ELEM_LIST.set, set)
      .done()
    try {
      await this.#sets.pieces(request, `the elements of ${set}`, (messages) => {
        for (const message of messages) elements.push(...setElements(message))
        return elements.length <= MOST_ELEMENTS
      })
    } catch (error) {
      // Deleted with its rule meanwhile: a notification says so.
      if (error instanceof KernelError && error.errnoName === 'ENOENT') return undefined
      throw error
    }
    return elements.length <= MOST_ELEMENTS ? elements : undefined
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]()
    this.#sets[Symbol.dispose]()
  }
}
