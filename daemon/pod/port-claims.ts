// Which attachment has which host port: a taken port is refused, with the name of its owner, before anything is
// changed.
import { formatIp, isUnspecified, sameIp } from '../../ipam/address.ts'
import type { HostPort } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'

type Port = Pick<HostPort, 'protocol' | 'hostPort' | 'hostIp'>
/** `cure`: for a claim of weftd's own. */
type Claim = { readonly owner: string; readonly because: string; readonly port: Port; readonly cure?: string }
/** What of weftd uses a port, as messages name it: "the tunnel to the other nodes (Backend.Port)". */
export type OwnUse = { readonly name: string; readonly key: string }

export class PortClaims {
  readonly #claims = new Map<string, Claim[]>()

  /** Claims the ports, all or none. Returns a function that gives back what this call claimed. Errors: PORT_TAKEN. */
  claim(owner: string, because: string, ports: readonly Port[]): () => void {
    const taken: Claim[] = []
    for (const port of ports) {
      const holder = this.#holderOf(port, owner)
      if (holder !== undefined) throw portTaken(port, holder)
      taken.push({ owner, because, port })
    }
    this.#add(taken)
    return () =>
      this.#drop(
        (claim) => taken.includes(claim),
        taken.map(({ port }) => keyOf(port))
      )
  }

  /**
   * Ports that weftd itself uses, instead of those that this use had: no pod may have them, and a pod that has one
   * keeps it. Errors: PORT_TAKEN naming that pod; the use keeps what it had.
   */
  use({ name, key }: OwnUse, ports: readonly Port[]): void {
    const owner = `weftd: ${name}`
    const because = `${name} (${key})`
    for (const port of ports) {
      const holder = this.#holderOf(port, owner)
      if (holder !== undefined)
        throw new WeftError(
          'PORT_TAKEN',
          `${because} needs port ${keyOf(port)}, which is a host port of ${holder.because}`,
          `delete that pod or give it another hostPort, or set ${key} to another port`
        )
    }
    this.release(owner)
    const cure = `give the pod another hostPort, or set ${key} to another port`
    this.#add(ports.map((port) => ({ owner, because, port, cure })))
  }

  /** Gives back all that the owner has. */
  release(owner: string): void {
    this.#drop((claim) => claim.owner === owner, [...this.#claims.keys()])
  }

  /** Who else has the port, or one that overlaps it. */
  #holderOf(port: Port, owner: string): Claim | undefined {
    return this.#claims.get(keyOf(port))?.find((other) => other.owner !== owner && overlap(other.port, port))
  }

  #add(claims: readonly Claim[]): void {
    for (const claim of claims) {
      const key = keyOf(claim.port)
      this.#claims.set(key, [...(this.#claims.get(key) ?? []), claim])
    }
  }

  #drop(isDropped: (claim: Claim) => boolean, keys: readonly string[]): void {
    for (const each of keys) {
      const left = (this.#claims.get(each) ?? []).filter((claim) => !isDropped(claim))
      if (left.length === 0) this.#claims.delete(each)
      else this.#claims.set(each, left)
    }
  }
}

const keyOf = ({ protocol, hostPort }: Port): string => `${hostPort}/${protocol}`

/** Whether one packet could match both. */
function overlap(a: Port, b: Port): boolean {
  if (a.hostIp === undefined || b.hostIp === undefined) return true
  if (a.hostIp.family !== b.hostIp.family) return false
  return isUnspecified(a.hostIp) || isUnspecified(b.hostIp) || sameIp(a.hostIp, b.hostIp)
}

function portTaken(port: Port, { because, port: theirs, cure }: Claim): WeftError {
  const at = (each: Port) => (each.hostIp === undefined ? '' : ` of ${formatIp(each.hostIp)}`)
  return new WeftError(
    'PORT_TAKEN',
    `host port ${keyOf(port)}${at(port)} is taken by ${because}${theirs.hostIp === undefined ? '' : `, which has it${at(theirs)}`}`,
    cure ?? 'delete that pod, or give one of the two another hostPort or hostIP'
  )
}
