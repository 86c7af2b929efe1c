// The reservations of all networks, one object per directory.
import type { Ip } from './address.ts'
import { type Deps, type Owner, Reservations } from './reservations.ts'

export type Holder = Owner & { readonly network: string }

export class Networks {
  readonly #opened = new Map<string, { readonly network: string; readonly reservations: Reservations }>()
  readonly #deps: (network: string) => Deps

  constructor(deps: (network: string) => Deps) {
    this.#deps = deps
  }

  /** The reservations of a network in a data directory; the same object each time. */
  reservations(dataDir: string, network: string): Reservations {
    const path = `${dataDir}/${network}`
    const known = this.#opened.get(path) ?? {
      network,
      reservations: new Reservations(dataDir, network, this.#deps(network))
    }
    this.#opened.set(path, known)
    return known.reservations
  }

  /** Holders of an address in other networks than `own`, among those opened so far. */
  holdersBeside(own: Reservations, ip: Ip): readonly Holder[] {
    return [...this.#opened.values()].flatMap(({ network, reservations }) => {
      const owner = reservations === own ? undefined : reservations.holderOf(ip)
      return owner?.ifname === undefined ? [] : [{ network, containerId: owner.containerId, ifname: owner.ifname }]
    })
  }
}
