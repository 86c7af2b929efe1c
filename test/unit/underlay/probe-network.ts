// Nodes that probe each other over a made-up network: packets are octets, answers come from the peer's kernel, and time
// passes only by step().
import { createHmac } from 'node:crypto'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { type Lease, leaseKey } from '../../../daemon/lease/lease.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { ProbeViews, type WayView } from '../../../daemon/underlay/probe-views.ts'
import { Prober } from '../../../daemon/underlay/prober.ts'
import { type Family, formatIp, type Ip, ipBytes, ipFromBytes, parseIp } from '../../../ipam/address.ts'
import { testNode } from '../test-node.ts'

export type Packet = {
  readonly from: string
  readonly to: string
  readonly isAnswer: boolean
  /** Octets of the IPv4 packet. */
  readonly size: number
  /** Numbers of the nodes. */
  readonly nodes: readonly [from: number, to: number]
}

const ip = (text: string): Ip => parseIp(text) ?? { family: 4, value: 0n }
const vtep = (n: number) => `10.${64 + (n >> 8)}.${n & 255}.0`
const address = (n: number) => `192.0.${n >> 8}.${n & 255}`
const numberOf = (text: string): number => {
  const [a = 0, b = 0, c = 0, d = 0] = text.split('.').map(Number)
  return a === 10 ? (b - 64) * 256 + c : c * 256 + d
}

export const leaseOf = (n: number, backendType = 'vxlan'): Lease => ({
  subnet: { 4: { ip: ip(vtep(n)), length: 24 } },
  publicIp: { 4: ip(address(n)) },
  backendType,
  backendData: { 4: { VNI: 1, VtepMAC: '0e:00:00:00:00:01' } },
  node: `node-${n}`
})

export const keyOf = (n: number): string => leaseKey(leaseOf(n))

type Received = (packet: Uint8Array, ago: number) => void
type Socket = { readonly source: string; readonly received: Received | undefined }

export class ProbeNetwork {
  /** Milliseconds. */
  time = 1_000_000
  readonly nodes: ProbingNode[] = []
  /** Whether the network carries it. */
  carries: (packet: Packet) => boolean = () => true
  sent = 0

  /** Nodes `1` to `count`; those after `probing` only have a kernel that answers. */
  constructor(count: number, probing = count, backend = 'vxlan') {
    for (let n = 1; n <= count; n++) this.nodes[n] = new ProbingNode(this, n, count, n <= probing, backend)
  }

  node(n: number): ProbingNode {
    return this.nodes[n] ?? this.missing(n)
  }

  missing(n: number): never {
    throw new Error(`no node ${n}`)
  }

  step(ms: number): void {
    for (const end = this.time + ms; this.time < end; ) {
      this.time += 250
      for (const node of this.nodes) if (node?.isBusy === false) node.prober?.tick()
    }
  }

  /** As the kernels of both ends do: the request, its answer, each by the network. */
  deliver(from: string, to: string, message: Uint8Array): void {
    this.sent++
    const [a, b] = [numberOf(from), numberOf(to)]
    const size = message.length + 20
    if (!this.carries({ from, to, isAnswer: false, size, nodes: [a, b] })) return
    const target = this.nodes[b]
    if (target === undefined || !target.isUp) return
    const packet = new Uint8Array(size)
    packet[0] = 0x45
    packet.set(ipBytes(ip(from)), 12)
    packet.set(message, 20)
    target.receive(to, packet)
    if (target.drops || !this.carries({ from: to, to: from, isAnswer: true, size, nodes: [b, a] })) return
    const answer = packet.slice()
    answer[20] = 0
    this.nodes[a]?.receive(from, answer)
  }
}

export class ProbingNode {
  isUp = true
  /** Its firewall drops ICMP. */
  drops = false
  conditions: string[] = []
  plainDrop: string | undefined
  readonly prober: Prober | undefined
  readonly #leases = new Map<string, Lease>()
  readonly #sockets: Socket[] = []
  readonly #views: ProbeViews | undefined
  readonly #type: string
  readonly #captures = new Set<Received>()
  readonly #network: ProbeNetwork
  /** Arrived while it was busy, and when. */
  #unread: { readonly to: string; readonly packet: Uint8Array; readonly at: number }[] = []
  #isBusy = false
  #wanted: (keys: readonly string[]) => void = () => undefined
  changes = 0
  /** How often it waited for packets. */
  watches = 0

  constructor(network: ProbeNetwork, n: number, count: number, isProbing: boolean, type: string) {
    this.#type = type
    this.#network = network
    if (!isProbing) return
    const backend = registry(BACKENDS).configure(type, {})
    const own = leaseOf(n)
    const node = testNode({ subnet: own.subnet, localIp: own.publicIp, publicIp: own.publicIp, name: `node-${n}` })
    const place = () => ({ node, backend, mtu: 1450 })
    const peers = {
      leases: this.#leases,
      skipped: new Map<string, string>(),
      since: () => network.time,
      isOwn: (key: string) => key === keyOf(n),
      onWanted: (_keys: readonly string[]): void => undefined
    }
    this.#wanted = (keys) => peers.onWanted(keys)
    const route = (key: string): readonly KernelObject[] => {
      const subnet = this.#leases.get(key.replace('lease ', ''))?.subnet[4]
      if (subnet === undefined) return []
      return [
        { kind: 'route', table: 254, destination: subnet, metric: 0, type: 'unicast', device: 'weft.1', protocol: 87 }
      ]
    }
    const conditions = () => this.conditions
    this.prober = new Prober({
      ...{ peers, place, reconciler: { wantedBy: route }, now: () => network.time },
      health: { has: (code) => conditions().includes(code) },
      plainDrop: () => this.plainDrop,
      mac: (bytes) => createHmac('sha256', `key of ${n}`).update(bytes).digest().subarray(0, 8),
      changed: () => this.changes++,
      capture: ({ received }) => {
        this.#captures.add(received)
        return { drain() {}, [Symbol.dispose]: () => void this.#captures.delete(received) }
      },
      open: ({ source, received }) => {
        const socket = { source: text(source, 4), received }
        this.#sockets.push(socket)
        return {
          send: (to, message) => {
            if (this.isUp) network.deliver(socket.source, text(to, 4), message)
          },
          flush() {},
          watch: () => void this.watches++,
          drain() {},
          [Symbol.dispose]: () => void this.#sockets.splice(this.#sockets.indexOf(socket), 1)
        }
      }
    })
    this.#views = new ProbeViews({ prober: this.prober, peers, place, now: () => network.time })
    this.put(...Array.from({ length: count }, (_, at) => at + 1).filter((each) => each !== n))
  }

  put(...numbers: readonly number[]): void {
    for (const n of numbers) this.#leases.set(keyOf(n), leaseOf(n, this.#type))
    this.#wanted(numbers.map(keyOf))
  }

  drop(n: number): void {
    this.#leases.delete(keyOf(n))
    this.#wanted([keyOf(n)])
  }

  receive(to: string, packet: Uint8Array): void {
    if (this.isBusy) this.#unread.push({ to, packet, at: this.#network.time })
    else this.#read(to, packet, 0)
  }

  /** Whether its event loop does other things; its kernel answers. */
  get isBusy(): boolean {
    return this.#isBusy
  }

  set isBusy(isBusy: boolean) {
    this.#isBusy = isBusy
    const unread = this.#unread
    this.#unread = []
    for (const { to, packet, at } of unread) this.#read(to, packet, this.#network.time - at)
  }

  #read(to: string, packet: Uint8Array, ago: number): void {
    for (const received of to.startsWith('10.') ? this.#captures : []) received(packet, ago)
    if (this.drops) return
    for (const { source, received } of [...this.#sockets]) if (source === to) received?.(packet, ago)
  }

  all() {
    return this.#views?.all() ?? []
  }

  /** What it says of the way to node `n`. */
  way(n: number, way = 'pods'): WayView {
    const found = this.#views?.of(keyOf(n), leaseOf(n, this.#type)).find((each) => each.way === way)
    if (found === undefined) throw new Error(`nothing of ${way} to node ${n}`)
    return found
  }

  verdict(n: number, way = 'pods'): string {
    return this.way(n, way).verdict
  }
}

const text = (bytes: Uint8Array, _family: Family): string => formatIp(ipFromBytes(bytes) ?? ip('0.0.0.0'))
