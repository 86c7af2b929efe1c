// The two sides of every comparison: how each makes a node of a host, and which executables attach a pod there.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Json, steps } from '../lab/cni.ts'
import type { Etcd } from '../lab/etcd.ts'
import { Flanneld } from '../lab/flanneld.ts'
import type { Host } from '../lab/host.ts'
import { peersDirectory } from '../lab/peers.ts'
import { Weftd } from '../lab/weftd.ts'
import type { CallerJob } from './caller.ts'

const repository = fileURLToPath(new URL('../../', import.meta.url))

/** A daemon that runs on a host. */
export interface Daemon {
  readonly pid: number
  readonly log: string
  stop(): Promise<void>
}

export interface Side {
  readonly name: 'weft' | 'flannel'
  readonly binDir: string
  readonly conflist: Json
  /** Starts the daemon on a host; resolves when it serves, or at once with `wait` false. */
  daemon(host: Host, etcd: Etcd, options?: { readonly wait?: boolean }): Promise<Daemon>
}

const portmap = { type: 'portmap', capabilities: { portMappings: true } }

const flannel: Side = {
  name: 'flannel',
  get binDir() {
    return `${peersDirectory()}/cni`
  },
  // As flannel's manifest installs it.
  conflist: {
    name: 'cbr0',
    cniVersion: '0.3.1',
    plugins: [{ type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } }, portmap]
  },
  daemon: (host, etcd, { wait = true } = {}) => Flanneld.start(host, { etcd, wait })
}

/**
 * Where Go is missing: Debian's reference plugins, with the configuration that flannel's plugin would give them, and no
 * daemon.
 */
const referencePlugins: Side = {
  ...flannel,
  get binDir() {
    return `${peersDirectory()}/cni`
  },
  conflist: {
    name: 'cbr0',
    cniVersion: '0.3.1',
    plugins: [
      {
        type: 'bridge',
        mtu: 1450,
        ipMasq: false,
        isGateway: true,
        isDefaultGateway: true,
        hairpinMode: true,
        ipam: { type: 'host-local', ranges: [[{ subnet: '10.32.16.0/20' }]], routes: [{ dst: '10.32.0.0/12' }] }
      },
      portmap
    ]
  },
  daemon: async (host) => ({ pid: host.pid, log: '', stop: async () => {} })
}

function peer(): Side {
  return existsSync(`${flannel.binDir}/flannel`) ? flannel : referencePlugins
}

const weft: Side = {
  name: 'weft',
  binDir: `${repository}dist/cni`,
  conflist: { name: 'weft', cniVersion: '1.0.0', plugins: [{ type: 'weft', capabilities: { portMappings: true } }] },
  async daemon(host, etcd, { wait = true } = {}) {
    const args = [`--etcd-endpoints=${etcd.endpointList}`, '--iface=eth0', '--ip-masq=true']
    const daemon = await Weftd.start(host, { args, wait, deadlineMs: 60_000 })
    return {
      pid: daemon.pid,
      get log() {
        return daemon.text
      },
      stop: async () => {
        await daemon.stop()
      }
    }
  }
}

/** Both sides; `--peers-only` leaves flannel's alone, `--ours-only` ours. */
export function sides(args: readonly string[]): readonly Side[] {
  if (args.includes('--peers-only')) return [peer()]
  for (const path of ['dist/cni/weft', 'daemon/main.ts']) {
    if (!existsSync(`${repository}${path}`)) {
      throw new Error(`${path} is missing; cure: run scripts/build, or measure flannel alone with --peers-only`)
    }
  }
  return args.includes('--ours-only') ? [weft] : [weft, peer()]
}

export interface PodCall {
  readonly verb: 'ADD' | 'DEL'
  readonly containerId: string
  readonly netns: string
  readonly hostPorts?: readonly {
    readonly hostPort: number
    readonly containerPort: number
    readonly protocol: string
  }[]
}

/** The executables of one call as libcni starts them. */
export function podJob(side: Side, call: PodCall): CallerJob {
  const capabilities = call.hostPorts ? { portMappings: call.hostPorts } : {}
  return {
    chain: call.verb === 'ADD',
    steps: steps({ verb: call.verb, config: side.conflist, capabilities }).map((config) => ({
      path: `${side.binDir}/${String(config.type)}`,
      config
    })),
    env: {
      CNI_COMMAND: call.verb,
      CNI_CONTAINERID: call.containerId,
      CNI_NETNS: call.netns,
      CNI_IFNAME: 'eth0',
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=${call.containerId}`,
      CNI_PATH: side.binDir
    }
  }
}

/** A number given as --name=N. */
export function numberOption(args: readonly string[], name: string, fallback: number): number {
  const given = args.find((argument) => argument.startsWith(`--${name}=`))
  if (!given) return fallback
  const value = Number(given.slice(name.length + 3))
  if (!Number.isInteger(value) || value < 1) throw new Error(`${given}: a whole number from 1 on is wanted`)
  return value
}
