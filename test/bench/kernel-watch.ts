// What a measured host's kernel holds, seen from outside: routes counted from /proc, and changes with their time from
// `ip monitor`.
import { readFileSync } from 'node:fs'
import type { Host } from '../lab/host.ts'
import { type Background, until } from '../lab/run.ts'

/**
 * How many IPv4 routes of made-up nodes (10.64.0.0 and on, /24) a host has. Reads the host's own /proc/PID/net/route.
 */
export function fakeRoutes(host: Host): number {
  let count = 0
  for (const line of readFileSync(`/proc/${host.pid}/net/route`, 'utf8').split('\n')) {
    const [, destination = '', , , , , , mask] = line.split('\t')
    // Little-endian hexadecimal: the first byte of the address is the last pair, 0A = 10; the second from 40 = 64 on.
    if (mask === '00FFFFFF' && destination.endsWith('0A') && Number.parseInt(destination.slice(4, 6), 16) >= 64) count++
  }
  return count
}

/** FDB and neighbour entries of a host, for checking that a route's way is complete. */
export async function vxlanEntries(host: Host): Promise<{ readonly fdb: number; readonly neighbours: number }> {
  const { stdout } = await host.sh(
    'bridge fdb show | grep -c " 0e:00:00\\|^0e:00:00" || true; ip neigh show nud permanent | grep -c "lladdr 0e:00:00" || true'
  )
  const [fdb, neighbours] = stdout.trim().split('\n').map(Number)
  return { fdb: fdb ?? 0, neighbours: neighbours ?? 0 }
}

export interface RouteChange {
  /** Wall clock in milliseconds since 1970, with microseconds, when `ip monitor` read it. */
  readonly atMs: number
  readonly gone: boolean
  /** As printed: `10.64.7.0/24 via …`. */
  readonly route: string
}

/** One line of `ip -ts monitor route` under TZ=UTC. */
export function routeChange(line: string): RouteChange | undefined {
  const match = /^\[(\S+?)\] (Deleted )?(.*)$/.exec(line)
  if (!match?.[1] || match[3] === undefined) return undefined
  const [seconds, microseconds = '0'] = match[1].split('.')
  return {
    atMs: Date.parse(`${seconds}Z`) + Number(microseconds) / 1000,
    gone: match[2] !== undefined,
    route: match[3].trim()
  }
}

/** `ip monitor` on a host: every change of a route with its time. */
export class RouteMonitor implements AsyncDisposable {
  readonly #program: Background

  private constructor(program: Background) {
    this.#program = program
  }

  static async start(host: Host): Promise<RouteMonitor> {
    const program = host.spawn('ip', ['-ts', '-4', 'monitor', 'route'], { name: 'monitor', env: { TZ: 'UTC' } })
    const monitor = new RouteMonitor(program)
    // It listens once it shows a change that we make.
    const probe = '198.51.100.1/32'
    await until(
      async () => {
        await host.sh(`ip route replace ${probe} dev lo; ip route del ${probe} dev lo`)
        return monitor.changes().some(({ route }) => route.startsWith('198.51.100.1'))
      },
      { what: 'ip monitor to listen' }
    )
    return monitor
  }

  changes(): readonly RouteChange[] {
    return this.#program
      .text()
      .split('\n')
      .flatMap((line) => routeChange(line) ?? [])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program.stop()
  }
}

/** Resident and anonymous memory of a process in MB (10^6 bytes). */
export function memoryOf(pid: number): { readonly resident: number; readonly anonymous: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const field = (name: string) => (Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024) / 1e6
  return { resident: field('VmRSS'), anonymous: field('RssAnon') }
}

/** Jiffies a second, as every architecture of Linux shows them to programs (USER_HZ). */
const HERTZ = 100

/** Processor time of a process so far, user and system, in seconds. */
export function processorSecondsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / HERTZ
}
