// Looks at a node: flanneld's process, unit and settings, its files, devices, list, pods and firewall. Changes nothing.
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { formatPrefix, parseIp, perFamily } from '../../ipam/address.ts'
import { contentOf, ifThere } from '../../ipam/files.ts'
import { LARGE_FILE } from '../../ipam/read-file.ts'
import { BACKENDS, registry } from '../backend/registry.ts'
import { parseSubnetEnv } from '../config/subnet-env.ts'
import { namedList, takenBefore } from '../lifecycle/conflist.ts'
import { foreignPlugins } from '../lifecycle/install.ts'
import { trustedPidsOf } from '../lifecycle/processes.ts'
import type { Conflist, Facts, FlannelDevice, KnownFlanneld, RunBy } from './facts.ts'
import { firewallFacts } from './firewall.ts'
import type { Places } from './plan.ts'
import { runProgram } from './program.ts'
import { readRecord } from './record.ts'

export type LookDeps = {
  readonly places: Places
  readonly subnetFile: string
  /** Whether weftd answers on its socket. */
  readonly weftdAnswers: () => Promise<boolean>
}

/** Errors: MIGRATE_FAILED where the record or the firewall can't be read. */
export async function look({ places, subnetFile, weftdAnswers }: LookDeps): Promise<Facts> {
  const record = readRecord(places.migrateDir)
  const flanneldPids = trustedPidsOf('flanneld')
  const [pid] = flanneldPids
  const flanneld = record?.flanneld ?? (pid === undefined ? undefined : await flanneldOf(pid))
  const conflist = conflistIn(places.cniConfDir)
  const known = conflist ?? record?.conflist
  const subnet = subnetIn(subnetFile)
  return {
    ...(record && { record }),
    ...(flanneld && { flanneld }),
    ...(conflist && { conflist }),
    flanneldPids,
    weftdAnswers: await weftdAnswers(),
    hasWeftdUnit: await hasUnit('weftd.service'),
    subnet: perFamily(subnet?.subnet ?? {}).map(([, prefix]) => formatPrefix(prefix)),
    ipMasq: subnet?.ipMasq ?? false,
    devices: devices(),
    pods: known === undefined ? 0 : reservedIn(join('/var/lib/cni/networks', known.network)),
    foreignPlugins: foreignPlugins(places.cniBinDir),
    hasPluginSource: statSync(join(places.cniSourceDir, 'weft'), { throwIfNoEntry: false }) !== undefined,
    ...(await firewallFacts())
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // The process has ended.
    return ''
  }
}

async function flanneldOf(pid: number): Promise<KnownFlanneld> {
  const [, ...words] = textOf(`/proc/${pid}/cmdline`).split('\0').slice(0, -1)
  const variables = textOf(`/proc/${pid}/environ`)
    .split('\0')
    .flatMap((line) => {
      const [, name = '', value = ''] = /^(FLANNELD_\w+|NODE_NAME)=([\s\S]*)$/.exec(line) ?? []
      return name === '' ? [] : [[name, value] as const]
    })
  return { arguments: words, environment: Object.fromEntries(variables), runBy: await runByOf(pid) }
}

/** From the control group: a unit's last part, or a pod's. */
async function runByOf(pid: number): Promise<RunBy> {
  const groups = textOf(`/proc/${pid}/cgroup`)
  if (/kubepods|cri-containerd|crio-/.test(groups)) return { kind: 'kubernetes' }
  const unit = /\/([^/\n]+\.service)$/m.exec(groups)?.[1]
  if (unit === undefined || !(await mainPidIs(unit, pid))) return { kind: 'nobody' }
  const { stdout } = await runProgram(['systemctl', 'is-enabled', unit])
  return { kind: 'unit', unit, isEnabled: stdout.trim() === 'enabled' }
}

/** A process that was started by hand is in the unit of a terminal or of sshd. */
async function mainPidIs(unit: string, pid: number): Promise<boolean> {
  const { exit, stdout } = await runProgram(['systemctl', 'show', '--property=MainPID', '--value', unit])
  return exit === 0 && Number(stdout) === pid
}

async function hasUnit(unit: string): Promise<boolean> {
  const { exit, stdout } = await runProgram(['systemctl', 'show', '--property=LoadState', '--value', unit])
  return exit === 0 && stdout.trim() === 'loaded'
}

function subnetIn(path: string): ReturnType<typeof parseSubnetEnv> | undefined {
  try {
    const text = contentOf(path)
    return text === undefined ? undefined : parseSubnetEnv(text, path)
  } catch {
    // The same as none: the plan says what is missing.
    return undefined
  }
}

/** From /proc and the kernel, not from /sys, which may show another network namespace. */
function devices(): readonly FlannelDevice[] {
  const { flannelDevice } = registry(BACKENDS)
  const addresses = networkInterfaces()
  return [...textOf('/proc/self/net/dev').matchAll(/^\s*(flannel[^:\s]*):/gm)]
    .map(([, name = '']) => name)
    .sort()
    .map((name) => {
      const known = flannelDevice(name)
      const mac = addresses[name]?.[0]?.mac ?? ''
      return { name, mac, ...(known && { backend: known.backend }), outlivesFlanneld: known?.outlivesFlanneld ?? false }
    })
}

/** The first list of the directory, if flannel's plugin is in it. */
export function conflistIn(directory: string): Conflist | undefined {
  const names = ifThere(directory, (path) => readdirSync(path)) ?? []
  for (const name of takenBefore(names)) {
    const path = join(directory, name)
    const { network, types } = namedList(contentOf(path, LARGE_FILE))
    if (types.includes('flannel')) return { path, network, types }
  }
  return undefined
}

/** Files that are named after an address. */
function reservedIn(directory: string): number {
  const names = ifThere(directory, (path) => readdirSync(path)) ?? []
  return names.filter((name) => parseIp(name) !== undefined).length
}
