// What weftd removes when it ends on a node that flanneld takes over again: rules that would drop packets once nobody
// keeps their sets, and devices that only Weft has. Everything else stays for flanneld and for running pods.
import { rmSync } from 'node:fs'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { deviceOf, type KernelObject } from '../state/object.ts'
import { NFT_TABLE } from '../state/ownership.ts'

/**
 * Chains and sets of daemon/firewall/tunnel-guard.ts and daemon/firewall/clear-guard.ts: a later peer is not in their
 * sets, and flanneld's devices are not in their rules; both would be cut off.
 */
const GUARD = /^(tunnel|clear|encrypted)_/
/** Devices that Weft's backends make, and flanneld's do not. */
const OWN_DEVICE = /^weft[-.]/

/** Whether the object stays, so that no packet is lost until flanneld has its own. */
export function staysForFlanneld(object: KernelObject): boolean {
  if (object.kind === 'nft-chain') return object.table !== NFT_TABLE || !GUARD.test(object.chain)
  if (object.kind === 'nft-set' || object.kind === 'nft-element')
    return object.table !== NFT_TABLE || !GUARD.test(object.set)
  const device = object.kind === 'link' ? object.name : deviceOf(object)
  return device === undefined || !OWN_DEVICE.test(device)
}

/**
 * `mark`: the file that asked for it, which a later weftd must not find. Never throws: what could not be removed is
 * logged, and `weftd clean` removes it.
 */
export async function handBack(reconciler: Pick<Reconciler, 'leave'>, mark: string, log: Log): Promise<void> {
  try {
    const outcomes = await reconciler.leave(staysForFlanneld)
    const failed = outcomes.flatMap(({ error }) => (error === undefined ? [] : [reasonOf(error)]))
    if (failed.length > 0) log.error({ failed }, 'some rules could not be removed')
    rmSync(mark, { force: true })
    log.info({}, 'handed back: routes, tunnel and pods stay as they are for flanneld')
  } catch (error) {
    log.error({ err: error }, `handing back failed: ${reasonOf(error)}`)
  }
}
