// Removes Weft from a node, kernel objects and files, except what running pods need.
import { existsSync } from 'node:fs'
import { contains, formatIp, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { bridgeMac } from '../attachment/identity.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { removeFile } from '../base/replace-file.ts'
import type { Options } from '../cli/flag-table.ts'
import { leaseFilePath } from '../node/lease-file.ts'
import { removeSubnetFile } from '../node/subnet-file.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { addressesIn, deviceOf, type KernelObject, type Link, type State } from '../state/object.ts'
import { ALIAS_MARK } from '../state/ownership.ts'
import { textOf } from '../state/text.ts'
import { conflistRecord, removeConflist } from './conflist-file.ts'
import { removePlugins } from './install.ts'
import { leftovers } from './leftovers.ts'

export type UninstallDeps = {
  readonly options: Pick<Options, 'cniConfDir' | 'cniBinDir' | 'subnetFile' | 'stateDir'>
  readonly reconciler: Pick<Reconciler, 'leave' | 'removeTables' | 'discard' | 'observed'>
  /** The MACs of Weft's bridges are derived from it. */
  readonly identity: string
  /** This node's; a bridge with an address in it is for Weft's pods. */
  readonly subnet: PerFamily<Prefix>
  /** Files of the backends' secrets that weftd writes. */
  readonly secretFiles: readonly string[]
  /** Undoes what the commands of the network configuration did. */
  readonly undoCommands: () => Promise<void>
  /** How many pods are attached. */
  readonly pods: number
  readonly log: Log
}

/**
 * First the configuration list, so that the runtime sends no more pods; then tunnels, routes, firewall; then
 * executables, subnet.env and the remembered lease. Running pods keep their interfaces and reach each other on this
 * node until they are deleted. Never throws: continues after a failure, logs what is left, and resolves with false
 * then.
 */
export async function uninstall(deps: UninstallDeps): Promise<boolean> {
  const { options, reconciler, pods, log } = deps
  const failed: string[] = []
  const step = async (what: string, work: () => void | Promise<void>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      failed.push(what)
      log.error({ err: error }, `${what} could not be removed: ${reasonOf(error)}`)
    }
  }
  const logRemoved = (paths: readonly (string | undefined)[]): void => {
    for (const path of paths) if (path !== undefined) log.info({ path }, 'removed')
  }
  const { cniConfDir, cniBinDir, subnetFile, stateDir } = options
  if (cniConfDir !== undefined)
    await step('the CNI configuration list', () => logRemoved([removeConflist(cniConfDir, conflistRecord(stateDir))]))
  await step('what the commands of the network configuration did', deps.undoCommands)
  await step('the network', async () => refuseErrors(await reconciler.leave(staysFor(reconciler.observed))))
  await step('the firewall tables', async () => {
    const [complaint] = await reconciler.removeTables()
    if (complaint !== undefined) throw new Error(complaint)
  })
  const { observed } = reconciler
  const bridges = pods === 0 ? emptyBridges(observed, deps.subnet, deps.identity) : []
  const remaining = leftovers({ observed: new Map(observed), bridges, identity: deps.identity, subnet: deps.subnet })
  await step('the bridge', async () => refuseErrors(await reconciler.discard(bridges)))
  if (cniBinDir !== undefined) await step('the plugins', () => logRemoved(removePlugins(cniBinDir)))
  await step('subnet.env', () => {
    const isThere = existsSync(subnetFile)
    if (removeSubnetFile(subnetFile, stateDir)) logRemoved(isThere ? [subnetFile] : [])
    else log.warn({ path: subnetFile }, 'subnet.env stays: another program has written it since')
  })
  await step('the remembered lease', () => {
    const path = leaseFilePath(stateDir)
    logRemoved(removeFile(path) ? [path] : [])
  })
  await step('the secrets of the backends', () => logRemoved(deps.secretFiles.filter((path) => removeFile(path))))
  if (pods > 0) log.warn({ pods }, 'running pods keep their interfaces and reach only this node until they are deleted')
  if (failed.length > 0) return false
  if (remaining.length === 0) log.info({}, 'this node is clean')
  else log.info({ stays: remaining }, `this node is clean, apart from what stays: ${remaining.join('; ')}`)
  return true
}

function refuseErrors(outcomes: Awaited<ReturnType<Reconciler['discard']>>): void {
  const failed = outcomes.flatMap(({ change, error }) =>
    error === undefined ? [] : [`${textOf(change.object)}: ${reasonOf(error)}`]
  )
  if (failed.length > 0) throw new Error(failed.join('; '))
}

/** A pod's end on the host, by its alias; the node's own link may be a veth too. */
const isPodLink = (link: Link): boolean =>
  link.form?.type === 'veth' && link.alias?.startsWith(`${ALIAS_MARK} `) === true

/**
 * Pods' ends on the host with their objects and the routes to them, and bridges with their addresses; not routes to
 * other nodes over a bridge.
 */
export function staysFor(observed: State): (object: KernelObject) => boolean {
  const links = [...observed.values()].filter((object) => object.kind === 'link')
  const ends = new Set(links.filter((link) => isPodLink(link) || link.form?.type === 'ifb').map(({ name }) => name))
  const bridges = new Set(links.filter(({ form }) => form?.type === 'bridge').map(({ name }) => name))
  const routed = new Set(
    [...observed.values()].flatMap((object) =>
      object.kind === 'route' && ends.has(object.device ?? '') ? [formatIp(object.destination.ip)] : []
    )
  )
  return (object) => {
    if (object.kind === 'link') return ends.has(object.name) || bridges.has(object.name)
    // What the administrator drops for running pods stays dropped.
    if (object.kind === 'admin-call') return ends.size > 0
    const device = deviceOf(object) ?? ''
    if (object.kind === 'proxy') return routed.has(formatIp(object.ip))
    return ends.has(device) || (object.kind === 'address' && bridges.has(device))
  }
}

/** Bridges without ports, with an address of our subnet, and created by Weft, which their MAC shows. */
export function emptyBridges(observed: State, subnet: PerFamily<Prefix>, identity: string): readonly KernelObject[] {
  const objects = [...observed.values()]
  const subnets = perFamily(subnet).map(([, prefix]) => prefix)
  const inSubnet = (name: string) =>
    addressesIn(observed, name).some((address) => subnets.some((prefix) => contains(prefix, address.prefix)))
  const isOurs = ({ name, mac }: Link) => mac === bridgeMac(identity, name)
  const isUsed = (name: string) => objects.some((object) => object.kind === 'link' && object.master === name)
  return objects.filter(
    (object) =>
      object.kind === 'link' &&
      object.form?.type === 'bridge' &&
      isOurs(object) &&
      inSubnet(object.name) &&
      !isUsed(object.name)
  )
}
