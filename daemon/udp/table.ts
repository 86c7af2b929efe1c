// Which node a pod's address belongs to: subnet of a lease → public address.

/** IPv4 addresses are unsigned numbers of 32 bits here. */
export type Peer = { readonly network: number; readonly length: number; readonly to: number }

const maskOf = (length: number): number => (length === 0 ? 0 : (0xffff_ffff << (32 - length)) >>> 0)

/** Of subnets that contain an address, the longest prefix counts. */
export class PeerTable {
  /** How many subnets each node has. */
  readonly #nodes = new Map<number, number>()
  /** By prefix length, the longest first. */
  #levels: { readonly mask: number; readonly peers: Map<number, number> }[] = []
  /** Packets come in trains. */
  #last = -1
  #found = 0

  set({ network, length, to }: Peer): void {
    this.delete(network, length)
    const mask = maskOf(length)
    let level = this.#levels.find((each) => each.mask === mask)
    if (level === undefined) {
      level = { mask, peers: new Map() }
      this.#levels = [...this.#levels, level].sort((a, b) => b.mask - a.mask)
    }
    level.peers.set((network & mask) >>> 0, to)
    this.#nodes.set(to, (this.#nodes.get(to) ?? 0) + 1)
    this.#last = -1
  }

  delete(network: number, length: number): void {
    const mask = maskOf(length)
    const peers = this.#levels.find((each) => each.mask === mask)?.peers
    const to = peers?.get((network & mask) >>> 0)
    if (peers === undefined || to === undefined) return
    peers.delete((network & mask) >>> 0)
    const subnets = (this.#nodes.get(to) ?? 1) - 1
    if (subnets === 0) this.#nodes.delete(to)
    else this.#nodes.set(to, subnets)
    this.#levels = this.#levels.filter((level) => level.peers.size > 0)
    this.#last = -1
  }

  /**
   * Whether the node at `sender` may send a packet from `source`: a pod's address by its own node only. Others are those
   * of nodes, which send from any address they have.
   */
  maySend(sender: number, source: number): boolean {
    const owner = this.find(source)
    return owner === sender || (owner === 0 && this.#nodes.has(sender))
  }

  /** 0: nobody's. */
  find(address: number): number {
    if (address === this.#last) return this.#found
    this.#last = address
    this.#found = 0
    for (const { mask, peers } of this.#levels) {
      const to = peers.get((address & mask) >>> 0)
      if (to === undefined) continue
      this.#found = to
      break
    }
    return this.#found
  }
}
