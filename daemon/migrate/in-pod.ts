// The part of a cluster's move that is done on each node, in its weft pod, where Kubernetes starts and stops the daemons:
// the runtime's list, the plugins, and flannel's rules.
import { rmSync, statSync } from 'node:fs'
import { handedBackMark } from '../lifecycle/conflist-file.ts'
import { foreignPlugins } from '../lifecycle/install.ts'
import type { MoveRecord } from './facts.ts'
import { removeFlannelRules } from './firewall.ts'
import { conflistIn } from './look.ts'
import { conflistBack, installOurs, keepOriginals, moveConflist, pluginsBack } from './move.ts'
import type { Places } from './plan.ts'
import { readRecord, removeRecord } from './record.ts'

export type InPod = {
  readonly places: Places
  readonly stateDir: string
  readonly deadlineMs: number
  readonly weftdAnswers: () => Promise<boolean>
}

/** Once weftd is proven. Idempotent. Errors: MIGRATE_FAILED. */
export async function applyInPod({ places, stateDir, deadlineMs }: InPod): Promise<void> {
  rmSync(handedBackMark(stateDir), { force: true })
  const record = readRecord(places.migrateDir) ?? newRecord(places)
  keepOriginals(record, foreignPlugins(places.cniBinDir), places)
  installOurs(record, places)
  await moveConflist(record, places, deadlineMs)
  await removeFlannelRules()
}

/** Before Kubernetes stops weftd. Idempotent. Errors: MIGRATE_FAILED. */
export async function rollBackInPod(node: InPod): Promise<void> {
  const record = readRecord(node.places.migrateDir)
  if (record === undefined) return
  await conflistBack(record, node)
  pluginsBack(record, node.places)
  removeRecord(node.places.migrateDir)
}

/** Kubernetes has flanneld's command line. */
function newRecord({ cniConfDir }: Places): MoveRecord {
  const list = conflistIn(cniConfDir)
  return {
    version: 1,
    at: new Date().toISOString(),
    direction: 'apply',
    isComplete: false,
    flanneld: { arguments: [], environment: {}, runBy: { kind: 'kubernetes' } },
    ...(list && { conflist: { ...list, mode: statSync(list.path).mode & 0o7777 } }),
    plugins: []
  }
}
