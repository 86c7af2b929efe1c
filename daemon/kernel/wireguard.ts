// Reads and changes WireGuard devices of the kernel or of wireguard-go, and starts wireguard-go where the kernel has no
// WireGuard.
import { toError, WeftError } from '../base/error.ts'
import { errnoNumber } from '../os/libc.ts'
import type { Change } from '../state/difference.ts'
import type { Outcome } from '../state/kernel.ts'
import { isSetting, type KernelObject, type Key, sameObject } from '../state/object.ts'
import type { WgDevice } from '../state/wireguard.ts'
import type { DeviceState, WireguardPort } from '../state/wireguard-port.ts'
import { KernelError, moduleCure, refused } from './netlink/error.ts'
import { GenericFamilies } from './netlink/generic.ts'
import type { RequestSocket } from './netlink/request-socket.ts'
import { deviceIn, getDevice, setDevice, WG_FAMILY } from './netlink/wireguard.ts'
import { startWireguardGo } from './wireguard-go.ts'
import { observedPeer, peerChange } from './wireguard-peers.ts'
import { userspacePort } from './wireguard-uapi.ts'

/** Peers changed in one request to the device. */
const BATCH = 500

export type WireguardDeps = {
  /** Of NETLINK_GENERIC. */
  readonly socket: RequestSocket
  /** --wireguard-go: the executable; absent: only the kernel's WireGuard is used. */
  readonly executable: string | undefined
  /** Milliseconds since 1970, the clock of handshakes. */
  readonly now: () => number
}

export class Wireguard {
  readonly #executable: string | undefined
  readonly #families: GenericFamilies
  readonly #kernel: WireguardPort
  readonly #now: () => number

  constructor({ socket, executable, now }: WireguardDeps) {
    this.#executable = executable
    this.#families = new GenericFamilies(socket)
    this.#kernel = kernelPort(socket, this.#families)
    this.#now = now
  }

  /** Whether a device is to be made by wireguard-go. */
  async isUserspace(): Promise<boolean> {
    return this.#executable !== undefined && (await this.#families.find(WG_FAMILY)) === undefined
  }

  /** Makes the device by wireguard-go. Errors: WIREGUARD_GO. */
  start(device: string): Promise<void> {
    return startWireguardGo(this.#executable ?? '', device)
  }

  /** The objects of a device, each peer as it counts beside what is desired of it. */
  async read(device: string, desired: (key: Key) => KernelObject | undefined): Promise<readonly KernelObject[]> {
    const state = await this.#read(device)
    if (state === undefined) return []
    const own: WgDevice = { kind: 'wg-device', device, publicKey: state.publicKey, listenPort: state.listenPort }
    return [own, ...state.peers.map((peer) => observedPeer(device, peer, desired, this.#now()))]
  }

  async #read(device: string): Promise<DeviceState | undefined> {
    return (await userspacePort.read(device)) ?? this.#kernel.read(device)
  }

  /** One outcome for each change, in their order; the changes of a device go together. */
  async apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    const byDevice = Map.groupBy(changes, ({ object }) => ('device' in object ? (object.device ?? '') : ''))
    const outcomes = new Map<Change, Outcome>()
    for (const [device, some] of byDevice)
      for (const outcome of await this.#applyTo(device, some)) outcomes.set(outcome.change, outcome)
    return changes.flatMap((change) => outcomes.get(change) ?? [])
  }

  async #applyTo(device: string, changes: readonly Change[]): Promise<readonly Outcome[]> {
    try {
      const state = await this.#read(device)
      if (state === undefined) return changes.map((change) => withoutDevice(change))
      const settings = changes.filter(({ object }) => isSetting(object))
      const outcomes = new Map<Change, Outcome>()
      for (const change of settings) outcomes.set(change, await this.#applySetting(change, state))
      const peers = changes.filter(({ object }) => object.kind === 'wg-peer')
      for (let at = 0; at < peers.length; at += BATCH)
        for (const outcome of await this.#applyPeers(device, peers.slice(at, at + BATCH)))
          outcomes.set(outcome.change, outcome)
      return changes.map((change) => outcomes.get(change) ?? { change })
    } catch (error) {
      return changes.map((change) => ({ change, error: errorOf(change, toError(error)) }))
    }
  }

  /** The present values are not written again: another port would lose the packets in between. */
  async #applySetting(change: Change, state: DeviceState): Promise<Outcome> {
    const wanted = change.object as WgDevice
    if (change.do === 'remove' || sameObject(wanted, { ...wanted, ...onlyOwn(state) }))
      return { change, unchanged: true }
    const { device, privateKey, publicKey, listenPort } = wanted
    try {
      await this.#change({
        device,
        ...(publicKey !== state.publicKey && { privateKey }),
        ...(listenPort !== state.listenPort && { listenPort })
      })
      return { change }
    } catch (error) {
      return { change, error: errorOf(change, toError(error)) }
    }
  }

  /** All in one request; where that is refused each by itself, to know which. */
  async #applyPeers(device: string, changes: readonly Change[]): Promise<readonly Outcome[]> {
    try {
      await this.#change({ device, peers: changes.map(peerChange) })
      return changes.map((change) => ({ change }))
    } catch (error) {
      const [only] = changes
      if (only !== undefined && changes.length === 1) return [{ change: only, error: errorOf(only, toError(error)) }]
      const outcomes: Outcome[] = []
      for (const change of changes) outcomes.push(...(await this.#applyPeers(device, [change])))
      return outcomes
    }
  }

  async #change(change: Parameters<WireguardPort['change']>[0]): Promise<void> {
    const isUserspace = (await userspacePort.read(change.device)) !== undefined
    await (isUserspace ? userspacePort : this.#kernel).change(change)
  }
}

const onlyOwn = ({ publicKey, listenPort }: DeviceState) => ({ publicKey, listenPort })

function withoutDevice(change: Change): Outcome {
  return change.do === 'remove' ? { change } : { change, error: refused('add', change.object, errnoNumber('ENODEV')) }
}

function errorOf({ do: what, object, instead }: Change, error: Error): Error {
  const operation = what === 'remove' ? 'remove' : instead === undefined ? 'add' : 'change'
  const errno = (error as { readonly errno?: unknown }).errno
  return error instanceof WeftError || typeof errno !== 'number' ? error : refused(operation, object, errno)
}

/** The kernel's devices, by generic netlink. */
function kernelPort(socket: RequestSocket, families: GenericFamilies): WireguardPort {
  /** A family's number is another one after its module was loaded again. */
  const again = async <T>(attempt: () => Promise<T>): Promise<T> => {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof KernelError) || error.errnoName !== 'ENOENT') throw error
      families.forget(WG_FAMILY)
      return attempt()
    }
  }
  return {
    read: (device) =>
      again(async () => {
        const family = await families.find(WG_FAMILY)
        if (family === undefined) return undefined
        const request = () => getDevice(family, device)
        try {
          return deviceIn(await socket.collect(request, `the WireGuard device ${device}`, (message) => message))
        } catch (error) {
          const isGone = error instanceof KernelError && ['ENODEV', 'EOPNOTSUPP'].includes(error.errnoName)
          if (isGone) return undefined
          throw error
        }
      }),
    change: (change) =>
      again(async () => {
        const family = await families.find(WG_FAMILY)
        const object = `the WireGuard device ${change.device}`
        if (family === undefined)
          throw new WeftError('KERNEL_FEATURE_MISSING', `this kernel has no ${WG_FAMILY}`, moduleCure(WG_FAMILY))
        const [failure] = (await socket.send(setDevice(family, change))).filter((each) => each !== undefined)
        if (failure !== undefined) throw new KernelError({ operation: 'change', object, ...failure })
      })
  }
}
