// One node of scripts/bench probe: asks so many made-up peers, and prints what that costs this process. Run by
// probe.ts as `node --expose-gc probe-worker.ts PEERS SECONDS`.
import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises'
import { BACKENDS, registry } from '../../daemon/backend/registry.ts'
import { type Lease, leaseKey } from '../../daemon/lease/lease.ts'
import { RawSocket } from '../../daemon/os/raw-socket.ts'
import { probeMac } from '../../daemon/probes.ts'
import type { KernelObject } from '../../daemon/state/object.ts'
import type { Verdict } from '../../daemon/underlay/judge.ts'
import { Prober } from '../../daemon/underlay/prober.ts'
import { type Ip, parseIp } from '../../ipam/address.ts'
import { testNode } from '../unit/test-node.ts'

/** What one run costs. */
export type Cost = {
  readonly peers: number
  /** Seconds of processor time for a second, and of a process that does nothing. */
  readonly processor: number
  readonly idle: number
  readonly bytes: number
  readonly packets: number
  readonly whole: number
}

/**
 * Seconds that pass before anything is measured, and in a short time: the first round of all peers, and so much more that
 * the code is compiled as in a daemon that has run for long.
 */
const BEFORE = 3_600
/** Milliseconds until all leases have been looked at, some hundred a turn. */
const LOOKED_AT = 15_000

const ip = (value: number): Ip => ({ family: 4, value: BigInt(value) })
const VTEPS = 0x0a40_0000
const NODES = 0xc612_0000

const leaseOf = (n: number): Lease => ({
  subnet: { 4: { ip: ip(VTEPS + n * 256), length: 24 } },
  publicIp: { 4: ip(NODES + n) },
  backendType: 'vxlan',
  backendData: {},
  node: `node-${n}`
})

async function measure(count: number, seconds: number, own: Ip): Promise<Cost> {
  const leases = new Map(Array.from({ length: count }, (_, n) => [leaseKey(leaseOf(n)), leaseOf(n)] as const))
  const backend = registry(BACKENDS).configure('vxlan', {})
  const subnet = { ip: ip(0x0ac8_0000), length: 24 }
  const node = testNode({ subnet: { 4: subnet }, localIp: { 4: own }, publicIp: { 4: own } })
  const route = (owner: string): readonly KernelObject[] => {
    const destination = leases.get(owner.slice('lease '.length))?.subnet[4]
    if (destination === undefined) return []
    return [{ kind: 'route', table: 254, destination, metric: 0, type: 'unicast', device: 'weft.1', protocol: 87 }]
  }
  let sent = 0
  // The end of this process's own start is no idle time.
  await pause(5_000)
  const idle = await processorWhile(seconds)
  const before = await heap()
  const place = () => ({ node, backend, mtu: 1450 })
  let ahead = 0
  const now = () => performance.now() + ahead
  const peers = { leases, isOwn: () => false, onWanted: (_keys: readonly string[]): void => undefined }
  const prober = new Prober({
    ...{
      place,
      health: { has: () => false },
      plainDrop: () => undefined,
      reconciler: { wantedBy: route },
      now
    },
    peers,
    mac: probeMac(),
    capture: () => ({ drain() {}, [Symbol.dispose]() {} }),
    open: (options) => {
      const socket = new RawSocket(options)
      return {
        drain: () => socket.drain(),
        watch: (ready) => socket.watch(ready),
        [Symbol.dispose]: () => socket[Symbol.dispose](),
        flush: () => socket.flush(),
        send: (to, message, tag) => {
          sent++
          socket.send(to, message, tag)
        }
      }
    }
  })
  const passBy = async (seconds: number) => {
    for (const end = now() + 1_000 * seconds; now() < end; ) {
      const due = prober.tick()
      // Answers arrive.
      await turn()
      ahead += due
    }
  }
  const whole = () => {
    let found = 0
    const see = (_key: string, _family: number, way: string, verdict: Verdict) => {
      if (way === 'pods' && verdict === 'whole') found++
    }
    prober.forEach(see)
    return found
  }
  peers.onWanted([...leases.keys()])
  await passBy(BEFORE)
  const end = new AbortController()
  const running = prober.follow(end.signal).catch(() => undefined)
  await pause(LOOKED_AT)
  const begun = sent
  const processor = await processorWhile(seconds)
  const packets = (sent - begun) / seconds
  const bytes = (await heap()) - before
  end.abort()
  await running
  const cost = { peers: count, processor, idle, bytes, packets, whole: whole() }
  prober[Symbol.dispose]()
  return cost
}

async function processorWhile(seconds: number): Promise<number> {
  const [used, begun] = [process.cpuUsage(), performance.now()]
  await pause(1_000 * seconds)
  const { user, system } = process.cpuUsage(used)
  return (user + system) / 1_000 / (performance.now() - begun)
}

/** Twice: the memory of arrays that the first round found unused is freed beside it. */
async function heap(): Promise<number> {
  globalThis.gc?.()
  await pause(200)
  globalThis.gc?.()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

if (import.meta.main) {
  const [peers = '10', seconds = '10', own = ''] = process.argv.slice(2)
  const cost = await measure(Number(peers), Number(seconds), parseIp(own) ?? ip(0))
  process.stdout.write(`${JSON.stringify(cost)}\n`)
}
