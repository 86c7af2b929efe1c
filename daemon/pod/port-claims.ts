// Which attachment has which port of this host, so that a port that is taken is refused by its holder's name before anything is done.
import { formatIp, isUnspecified, sameIp } from '../../ipam/address.ts'
import type { HostPort } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'

type Wish = Pick<HostPort, 'protocol' | 'hostPort' | 'hostIp'>
type Claim = { readonly owner: string; readonly because: string; readonly wish: Wish }

export class PortClaims {
  readonly #claims = new Map<string, Claim[]>()

  /** Takes the ports, all or none; the answer gives back what this call took. Errors: PORT_TAKEN. */
  claim(owner: string, because: string, wishes: readonly Wish[]): () => void {
    const taken: Claim[] = []
    for (const wish of wishes) {
      const others = this.#claims.get(port(wish)) ?? []
      const holder = others.find((other) => other.owner !== owner && meet(other.wish, wish))
      if (holder !== undefined) throw portTaken(wish, holder)
      taken.push({ owner, because, wish })
    }
    for (const claim of taken)
      this.#claims.set(port(claim.wish), [...(this.#claims.get(port(claim.wish)) ?? []), claim])
    return () =>
      this.#drop(
        (claim) => taken.includes(claim),
        taken.map(({ wish }) => port(wish))
      )
  }

  /** Gives back all that the owner has. */
  release(owner: string): void {
    this.#drop((claim) => claim.owner === owner, [...this.#claims.keys()])
  }

  #drop(goes: (claim: Claim) => boolean, ports: readonly string[]): void {
    for (const each of ports) {
      const left = (this.#claims.get(each) ?? []).filter((claim) => !goes(claim))
      if (left.length === 0) this.#claims.delete(each)
      else this.#claims.set(each, left)
    }
  }
}

const port = ({ protocol, hostPort }: Wish): string => `${hostPort}/${protocol}`

/** Whether a packet could be meant for both. */
function meet(a: Wish, b: Wish): boolean {
  if (a.hostIp === undefined || b.hostIp === undefined) return true
  if (a.hostIp.family !== b.hostIp.family) return false
  return isUnspecified(a.hostIp) || isUnspecified(b.hostIp) || sameIp(a.hostIp, b.hostIp)
}

function portTaken(wish: Wish, { because, wish: theirs }: Claim): WeftError {
  const at = (each: Wish) => (each.hostIp === undefined ? '' : ` of ${formatIp(each.hostIp)}`)
  return new WeftError(
    'PORT_TAKEN',
    `host port ${port(wish)}${at(wish)} is taken by ${because}${theirs.hostIp === undefined ? '' : `, which has it${at(theirs)}`}`,
    'delete that pod, or give one of the two another hostPort or hostIP'
  )
}
