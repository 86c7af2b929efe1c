// Which node a pod's address belongs to: subnet of a lease → public address.

/** IPv4 addresses are unsigned numbers of 32 bits here. */
export type Peer = { readonly network: number; readonly length: number; readonly to: number }

const maskOf = (length: number): number => (length === 0 ? 0 : (0xffff_ffff << (32 - length)) >>> 0)

/** Of subnets that contain an address, the longest prefix counts. */
export class PeerTable {
  /** By prefix length, the longest first. */
  #levels: { readonly mask: number; readonly peers: Map<number, number> }[] = []
  /** Packets come in trains. */
  #last = -1
  #found = 0

  set({ network, length, to }: Peer): void {
    const mask = maskOf(length)
    let level = this.#levels.find((each) => each.mask === mask)
    if (level === undefined) {
      level = { mask, peers: new Map() }
      this.#levels = [...this.#levels, level].sort((a, b) => b.mask - a.mask)
    }
    level.peers.set((network & mask) >>> 0, to)
    this.#last = -1
  }

  delete(network: number, length: number): void {
    const mask = maskOf(length)
    this.#levels.find((each) => each.mask === mask)?.peers.delete((network & mask) >>> 0)
    this.#levels = this.#levels.filter(({ peers }) => peers.size > 0)
    this.#last = -1
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
