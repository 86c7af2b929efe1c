// The memory that probes are written into: as long as the largest, with one view for each length, since a new one for
// each probe costs more than to write it.
import { type Mac, type Probe, writeProbe } from './probe-packet.ts'

/** Octets of a message on the link with the smallest MTU. */
const LEAST_MESSAGE = 128

export class ProbeMessage {
  readonly #mac: Mac
  #octets = new Uint8Array(0)
  readonly #parts = new Map<number, Uint8Array>()

  constructor(mac: Mac) {
    this.#mac = mac
  }

  /** Valid until the next one is written. */
  write(probe: Probe): Uint8Array {
    if (this.#octets.length < probe.mtu) {
      this.#octets = new Uint8Array(Math.max(probe.mtu, LEAST_MESSAGE))
      this.#parts.clear()
    }
    const length = writeProbe(this.#octets, probe, this.#mac)
    const known = this.#parts.get(length)
    if (known !== undefined) return known
    const part = this.#octets.subarray(0, length)
    this.#parts.set(length, part)
    return part
  }
}
