// The files of this node's membership: subnet.env, which Docker and others read, and the lease for the next weftd.
import { type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import { LeaseFile, leaseFilePath, type Remembered } from './lease-file.ts'
import { networksOf, type Place } from './place.ts'
import { previousSubnets, SubnetFile } from './subnet-file.ts'

export type NodeFilesDeps = {
  /** The path of subnet.env. */
  readonly subnetFile: string
  readonly stateDir: string
  /** For FLANNEL_IPMASQ. */
  readonly ipMasq: boolean
  readonly health: Health
  readonly log: Log
  readonly signal: AbortSignal
}

/** While one of these is active, it is unknown whether the store still has our lease. */
const LEASE_DOUBTFUL: ReadonlySet<string> = new Set(['STORE_UNREACHABLE', 'STORE_DENIED', 'LEASE_LOST', 'STARTING'])

export class NodeFiles {
  /** The lease of an earlier weftd. */
  readonly remembered: Remembered | undefined
  /** The subnets in the subnet.env of an earlier daemon; without one those of the remembered lease. */
  readonly previous: PerFamily<Prefix>
  readonly #subnetFile: SubnetFile
  readonly #leaseFile: LeaseFile
  readonly #ipMasq: boolean

  /** Reads what an earlier daemon left. */
  constructor({ subnetFile: path, stateDir, ipMasq, health, log, signal }: NodeFilesDeps) {
    this.#ipMasq = ipMasq
    this.#subnetFile = new SubnetFile({ path, stateDir, health, signal })
    this.#leaseFile = new LeaseFile(leaseFilePath(stateDir), log)
    this.#leaseFile.keepFresh(() => health.active().every(({ code }) => !LEASE_DOUBTFUL.has(code)), signal)
    const written = previousSubnets(path, log)
    this.remembered = this.#leaseFile.read()
    this.previous = perFamily(written).length > 0 ? written : (this.remembered?.lease.subnet ?? {})
  }

  write(place: Place): void {
    const { conf, node, mtu } = place
    this.#subnetFile.write({ network: networksOf(conf), subnet: node.subnet, mtu, ipMasq: this.#ipMasq })
    if (place.isConfirmed) this.#leaseFile.write(place)
  }
}
