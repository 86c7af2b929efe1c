// Builds the context of the pod verbs: the node's current place, reservations by directory, the clock.
import { readFileSync, readlinkSync } from 'node:fs'
import { type Ip, isUnspecified, type PerFamily, perFamily } from '../ipam/address.ts'
import type { Boot } from '../ipam/boot.ts'
import { Networks } from '../ipam/networks.ts'
import { FileReader } from '../ipam/read-file.ts'
import type { BackendPort } from './backend/backend.ts'
import type { Options } from './cli/flag-table.ts'
import type { Metrics } from './health/metrics.ts'
import type { ForeignFirewall } from './node/foreign-firewall.ts'
import { networksOf, type Place } from './node/place.ts'
import { flock } from './os/flock.ts'
import { Attachments } from './pod/attachments.ts'
import type { PodContext } from './pod/context.ts'

type Daemon = Pick<PodContext, 'health' | 'log'> &
  PodContext['self'] & {
    readonly options: Pick<Options, 'podMode'>
    readonly metrics: Metrics
  }

/** Parts that may be set later are looked up on each use. */
type Live = {
  readonly kernel: PodContext['kernel']
  readonly reconciler: PodContext['host']
  readonly place?: Place
  readonly drops?: Pick<ForeignFirewall, 'update'>
}

export function podContext(context: Daemon, core: Live): PodContext {
  const { options, log, health, metrics, identity, ipv6 } = context
  const steps = metrics.histogram(
    'weft_pod_step_seconds',
    'Duration of ADD, CHECK and DEL: total for the whole call, and its steps queue, sandbox, reserve, host, inside.',
    ['verb', 'step']
  )
  const boot = bootOf()
  const files = new FileReader()
  // Of its own: where reservations are must not wait for a resolv.conf on a file system that does not answer.
  const probes = new FileReader()
  const attachments = new Attachments()
  const freed = (network: string) => (ips: readonly Ip[]) => {
    attachments.freed.reboot += ips.length
    if (ips.length > 0)
      log.info({ network, freed: ips.length }, 'reservations from before the last reboot are free again')
  }
  return {
    kernel: core.kernel,
    host: core.reconciler,
    attachments,
    networks: new Networks((network) => ({
      ...{ lock: flock, answers: (path: string) => probes.answers(path) },
      boot: {
        id: boot.id,
        get since() {
          return boot.since
        },
        freed: freed(network)
      }
    })),
    files,
    health,
    place: () => {
      const { place } = core
      return place && { node: place.node, mtu: place.mtu, clusterNetworks: networksOf(place.conf) }
    },
    namespace: readlinkSync('/proc/self/ns/net'),
    self: { identity, ipv6 },
    defaultMode: options.podMode,
    updateForeignAccepts: async () => core.drops?.update(),
    log,
    now: () => performance.now(),
    timings: (verb, step, seconds) => steps.observe({ verb, step }, seconds)
  }
}

/** Errors: PORT_TAKEN naming the pod that has one as host port. */
export function useTunnelPorts(pods: PodContext, ports: readonly BackendPort[], ips: PerFamily<Ip>): void {
  const name = 'the tunnel to the other nodes'
  const used = ports.flatMap(({ protocol, port }) =>
    perFamily(ips).map(([, hostIp]) => ({ protocol, hostPort: port, hostIp }))
  )
  pods.attachments.ports.use({ name, key: ports[0]?.key ?? 'Backend' }, used)
}

/** The same for /healthz, /readyz and /metrics. An IPv6 wildcard takes IPv4, too. */
export function useHealthPort(
  pods: PodContext,
  { healthzIp, healthzPort }: Pick<Options, 'healthzIp' | 'healthzPort'>
): void {
  const isDual = healthzIp.family === 6 && isUnspecified(healthzIp)
  const port = { protocol: 'tcp' as const, hostPort: healthzPort, ...(isDual ? {} : { hostIp: healthzIp }) }
  pods.attachments.ports.use({ name: "weftd's /healthz", key: '--healthz-port' }, [port])
}

/**
 * proc(5): the kernel's id of this boot, and its begin in milliseconds since 1970, which moves when the clock is set.
 */
const bootOf = (): Boot => ({
  id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
  get since() {
    return Date.now() - 1_000 * Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  }
})
