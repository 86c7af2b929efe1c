// Where the Kubernetes parts of scripts/kube-parts are, and whether this machine can run them: what is missing is the
// reason of a skipped test.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

export type Part =
  | 'kube-apiserver'
  | 'kube-controller-manager'
  | 'kube-scheduler'
  | 'kubelet'
  | 'kube-proxy'
  | 'kubectl'
  | 'coredns'

/** The folder of the parts: WEFT_KUBE_BIN, or what scripts/kube-parts filled. */
function partsFolder(): string {
  const { WEFT_KUBE_BIN, WEFT_CACHE } = process.env
  return WEFT_KUBE_BIN || join(WEFT_CACHE || join(homedir(), '.cache/weft'), 'kube/bin')
}

export function part(name: Part): string {
  return join(partsFolder(), name)
}

export function hasPart(name: Part): boolean {
  return existsSync(part(name))
}

/** Why there can be no API server here; false when there can. */
export function noControlPlane(): string | false {
  if (process.getuid?.() !== 0) return 'makes network namespaces and needs root'
  if (!onPath('etcd')) return 'etcd is missing; cure: scripts/setup'
  for (const name of ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl'] as const)
    if (!hasPart(name)) return missing(name)
  return false
}

/** Why there can be no node here; false when there can. */
export function noCluster(): string | false {
  const reason = noControlPlane()
  if (reason) return reason
  for (const name of ['kubelet', 'kube-proxy'] as const) if (!hasPart(name)) return missing(name)
  for (const name of ['containerd', 'runc', 'iptables', 'conntrack'])
    if (!onPath(name)) return `${name} is missing; cure: scripts/setup`
  return noControlGroups()
}

function missing(name: Part): string {
  return `${name} is missing in ${partsFolder()}; cure: install Go and run scripts/kube-parts, or point WEFT_KUBE_BIN at a folder with the Kubernetes parts`
}

function onPath(name: string): boolean {
  return (process.env.PATH ?? '').split(':').some((folder) => folder !== '' && existsSync(join(folder, name)))
}

/** kubelet makes groups of its own for pods: under cgroup 2 in one tree, else in one of each of these. */
const controllers = ['cpu', 'cpuset', 'memory', 'pids'] as const

function noControlGroups(): string | false {
  const root = '/sys/fs/cgroup'
  try {
    const unified = join(root, 'cgroup.controllers')
    const there = existsSync(unified) ? readFileSync(unified, 'utf8').trim().split(' ') : readdirSync(root)
    const absent = controllers.filter((name) => !there.includes(name))
    if (absent.length > 0)
      return `kubelet needs the cgroup controllers ${absent.join(', ')}, which ${root} does not show`
    statSync('/dev/kmsg')
    return false
  } catch (error) {
    return `kubelet needs cgroups and /dev/kmsg: ${error instanceof Error ? error.message : error}`
  }
}
