// Carries out a plan step by step. Each step looks at what is there and may be repeated: a command that was killed at
// any point is completed by the same command again, or undone by the other one.
import { existsSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../ipam/files.ts'
import { WeftError } from '../base/error.ts'
import { replaceFile } from '../base/replace-file.ts'
import { CONFLIST_NAME } from '../lifecycle/conflist.ts'
import { handedBackMark, removeConflist } from '../lifecycle/conflist-file.ts'
import { installPlugins, removePlugins } from '../lifecycle/install.ts'
import { trustedPidsOf } from '../lifecycle/processes.ts'
import { NFT_TABLE } from '../state/ownership.ts'
import {
  type Daemons,
  removeSettings,
  startedAt,
  startFlanneld,
  startWeftd,
  stopFlanneld,
  stopWeftd,
  writeSettings
} from './daemons.ts'
import type { Facts, KnownFlanneld, MoveRecord } from './facts.ts'
import { firewallFacts, removeFlannelRules, removeWeftRules } from './firewall.ts'
import { APPLY, type Places, ROLLBACK, type StepName, settingsOf } from './plan.ts'
import { keep, keptConflist, keptPlugin, removeRecord, restore, writeRecord } from './record.ts'
import { until } from './until.ts'

export type Move = {
  readonly facts: Facts
  readonly places: Places
  readonly subnetFile: string
  readonly stateDir: string
  readonly daemons: Daemons
  readonly weftdAnswers: () => Promise<boolean>
  /** Resolves once weftd's probes reach every other node. Errors: MIGRATE_UNPROVEN. */
  readonly prove: () => Promise<void>
  /** Before each step. */
  readonly begins: (name: StepName) => void
}

/** Errors: MIGRATE_FAILED, MIGRATE_UNPROVEN; the steps before are done then, and none after. */
export async function applyMove(move: Move): Promise<void> {
  const { facts, places, daemons } = move
  const flanneld = facts.flanneld ?? unknownFlanneld()
  const { settings } = settingsOf(facts, places)
  const record = recordOf(facts, flanneld)
  const steps: Readonly<Record<(typeof APPLY)[number], () => void | Promise<void>>> = {
    record: () => keepOriginals(record, facts.foreignPlugins, places),
    settings: () => writeSettings(settings, daemons),
    'stop-flanneld': async () => {
      rmSync(handedBackMark(move.stateDir), { force: true })
      await stopFlanneld(flanneld, daemons)
    },
    'start-weftd': () => startWeftd(settings, move.weftdAnswers, daemons),
    prove: move.prove,
    plugins: () => installOurs(record, places),
    conflist: () => moveConflist(record, places, daemons.deadlineMs),
    firewall: removeFlannelRules
  }
  for (const name of APPLY) {
    move.begins(name)
    await steps[name]()
  }
  writeRecord(places.migrateDir, { ...record, isComplete: true })
}

/** Errors: as `applyMove`. */
export async function rollBack(move: Move): Promise<void> {
  const { facts, places, daemons } = move
  const record = facts.record ?? unknownFlanneld()
  writeRecord(places.migrateDir, { ...record, direction: 'rollback', isComplete: false })
  const { flanneld } = record
  const steps: Readonly<Record<string, () => void | Promise<void>>> = {
    'conflist-back': () => conflistBack(record, { ...move, deadlineMs: daemons.deadlineMs }),
    'plugins-back': () => pluginsBack(record, places),
    'stop-weftd': () => stopWeftd(daemons),
    'settings-away': removeSettings,
    'start-flanneld': () => startFlanneld(flanneld, daemons),
    'prove-flanneld': () => proveFlanneld(move),
    'firewall-back': () => removeWeftRules(NFT_TABLE),
    'record-away': () => {
      rmSync(handedBackMark(move.stateDir), { force: true })
      removeRecord(places.migrateDir)
    }
  }
  for (const name of ROLLBACK) {
    move.begins(name as StepName)
    await steps[name]?.()
  }
}

function unknownFlanneld(): never {
  throw new WeftError(
    'MIGRATE_FAILED',
    'no flanneld is known here',
    'run "weftctl migrate plan", which says what is missing'
  )
}

function recordOf({ record, conflist }: Facts, flanneld: KnownFlanneld): MoveRecord {
  const list = conflist && { ...conflist, mode: statSync(conflist.path).mode & 0o7777 }
  const kept = record?.conflist ?? list
  return {
    version: 1,
    at: record?.direction === 'apply' ? record.at : new Date().toISOString(),
    direction: 'apply',
    isComplete: false,
    flanneld,
    ...(kept && { conflist: kept }),
    plugins: record?.plugins ?? []
  }
}

/** The list first: weftd takes its content from there. */
export function keepOriginals(record: MoveRecord, foreignPlugins: readonly string[], places: Places): void {
  const { migrateDir, cniBinDir } = places
  makeDirectory(migrateDir, 0o700)
  const { conflist } = record
  if (conflist !== undefined && existsSync(conflist.path)) keep(conflist.path, keptConflist(migrateDir))
  const names = conflist === undefined ? [] : foreignPlugins
  for (const name of names) keep(join(cniBinDir, name), keptPlugin(migrateDir, name))
  Object.assign(record, { plugins: [...new Set([...record.plugins, ...names])].sort() })
  writeRecord(migrateDir, record)
}

export function installOurs({ conflist }: MoveRecord, { cniSourceDir: from, cniBinDir: to }: Places): void {
  if (conflist === undefined) return
  for (const result of installPlugins({ from, to, replaceForeign: true }))
    if (result.kind === 'failed') throw result.error
}

/** Only once weftd has written its own list: the runtime must find one at any time. */
export async function moveConflist(
  { conflist }: MoveRecord,
  { cniConfDir }: Places,
  deadlineMs: number
): Promise<void> {
  if (conflist === undefined) return
  const ours = join(cniConfDir, CONFLIST_NAME)
  await until(() => existsSync(ours), {
    what: `weftd to write ${ours}`,
    cure: 'run "weftctl status", which says what it waits for, then run the same command again',
    deadlineMs
  })
  rmSync(conflist.path, { force: true })
}

/** flannel's list sorts before Weft's, so that the runtime uses it from the moment that it is there. */
export async function conflistBack(
  { conflist }: MoveRecord,
  {
    places,
    stateDir,
    deadlineMs,
    weftdAnswers
  }: Pick<Move, 'places' | 'stateDir' | 'weftdAnswers'> & { readonly deadlineMs: number }
): Promise<void> {
  if (existsSync(stateDir)) replaceFile(handedBackMark(stateDir), Buffer.alloc(0), 0o600)
  if (conflist === undefined) return
  restore(keptConflist(places.migrateDir), conflist.path)
  const ours = join(places.cniConfDir, CONFLIST_NAME)
  if (!(await weftdAnswers())) removeConflist(places.cniConfDir)
  await until(() => !existsSync(ours), {
    what: `weftd to remove ${ours}`,
    cure: 'look at its log (journalctl -u weftd), then run the same command again',
    deadlineMs
  })
}

export function pluginsBack({ plugins, conflist }: MoveRecord, { migrateDir, cniBinDir }: Places): void {
  if (conflist === undefined) return
  for (const name of plugins) restore(keptPlugin(migrateDir, name), join(cniBinDir, name))
  removePlugins(cniBinDir)
}

/** flanneld writes subnet.env when it holds its lease and its rules are set; an older one of weftd's may still be there. */
async function proveFlanneld({ subnetFile, facts, daemons }: Move): Promise<void> {
  const isWritten = async (): Promise<boolean> => {
    const [pid] = trustedPidsOf('flanneld')
    const about = statSync(subnetFile, { throwIfNoEntry: false })
    if (pid === undefined || about === undefined || about.mtimeMs < startedAt(pid) - 1000) return false
    return !facts.ipMasq || (await firewallFacts()).chains.length > 0
  }
  await until(isWritten, {
    what: `flanneld to write ${subnetFile}${facts.subnet.length > 0 ? ` for ${facts.subnet.join(' and ')}` : ''}`,
    cure: 'look at its log for what it waits for, then run "weftctl migrate rollback" again',
    deadlineMs: daemons.deadlineMs
  })
}
