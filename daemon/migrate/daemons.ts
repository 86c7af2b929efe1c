// Starts and stops flanneld and weftd: by their units, or by the commands of the command line.
import { rmSync, statSync } from 'node:fs'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import { replaceFile } from '../base/replace-file.ts'
import { trustedPidsOf } from '../lifecycle/processes.ts'
import type { Commands, KnownFlanneld } from './facts.ts'
import { mustRun, wordsOf } from './program.ts'
import { environmentFile, type Settings } from './settings.ts'
import { until } from './until.ts'

/** weftd's settings; the unit reads them by the drop-in. */
const SETTINGS_FILE = '/etc/weft/migrated.env'
const DROP_IN = '/etc/systemd/system/weftd.service.d/50-migrated.conf'
const DROP_IN_TEXT = `# Written by weftctl migrate: flanneld's settings.\n[Service]\nEnvironmentFile=${SETTINGS_FILE}\n`
const UNIT = 'weftd.service'

export type Daemons = {
  readonly commands: Commands
  readonly hasWeftdUnit: boolean
  readonly deadlineMs: number
  /** Of this process. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** Idempotent. */
export async function writeSettings(settings: Settings, { commands, hasWeftdUnit }: Daemons): Promise<void> {
  makeDirectory('/etc/weft', 0o755)
  replaceIfOther(SETTINGS_FILE, environmentFile(settings), 0o600)
  if (!hasWeftdUnit || commands.startWeftd) return
  makeDirectory('/etc/systemd/system/weftd.service.d', 0o755)
  replaceIfOther(DROP_IN, DROP_IN_TEXT, 0o644)
  await mustRun(['systemctl', 'daemon-reload'])
}

export async function removeSettings(): Promise<void> {
  rmSync(SETTINGS_FILE, { force: true })
  if (statSync(DROP_IN, { throwIfNoEntry: false }) === undefined) return
  rmSync(DROP_IN, { force: true })
  await mustRun(['systemctl', 'daemon-reload'])
}

function replaceIfOther(path: string, text: string, mode: number): void {
  if (contentOf(path) !== text) replaceFile(path, Buffer.from(text), mode)
}

/** Stopped, and kept from starting again at the next boot. */
export async function stopFlanneld(flanneld: KnownFlanneld, { commands, deadlineMs }: Daemons): Promise<void> {
  if (commands.stopFlanneld) {
    // Also when none runs: the command may keep it from starting again.
    if (trustedPidsOf('flanneld').length > 0) await mustRun(wordsOf(commands.stopFlanneld))
  } else if (flanneld.runBy.kind === 'unit') await mustRun(['systemctl', 'disable', '--now', flanneld.runBy.unit])
  await until(() => trustedPidsOf('flanneld').length === 0, {
    what: 'flanneld to end',
    cure: 'stop what starts it again, then run the same command again',
    deadlineMs
  })
}

export async function startFlanneld(flanneld: KnownFlanneld, { commands, deadlineMs }: Daemons): Promise<void> {
  if (trustedPidsOf('flanneld').length === 0) {
    if (commands.startFlanneld) await mustRun(wordsOf(commands.startFlanneld))
    else if (flanneld.runBy.kind === 'unit') await mustRun(['systemctl', 'start', flanneld.runBy.unit])
  }
  if (flanneld.runBy.kind === 'unit' && flanneld.runBy.isEnabled && !commands.startFlanneld)
    await mustRun(['systemctl', 'enable', flanneld.runBy.unit])
  await until(() => trustedPidsOf('flanneld').length > 0, {
    what: 'flanneld to run',
    cure: 'look at its log for why it ended, then run the same command again',
    deadlineMs
  })
}

export async function startWeftd(
  settings: Settings,
  answers: () => Promise<boolean>,
  { commands, deadlineMs, environment }: Daemons
): Promise<void> {
  if (!(await answers())) {
    if (commands.startWeftd) await mustRun(wordsOf(commands.startWeftd), { env: { ...environment, ...settings } })
    // Not `systemctl start` alone: it would wait for the store, without saying for what.
    else await mustRun(['systemctl', 'start', '--no-block', UNIT])
  }
  if (!commands.startWeftd) await mustRun(['systemctl', 'enable', UNIT])
  await until(answers, {
    what: 'weftd to answer on its socket',
    cure: 'look at its log (journalctl -u weftd), then run the same command again, or "weftctl migrate rollback"',
    deadlineMs
  })
}

export async function stopWeftd({ commands, hasWeftdUnit, deadlineMs }: Daemons): Promise<void> {
  if (commands.stopWeftd) {
    if (trustedPidsOf('weftd').length > 0) await mustRun(wordsOf(commands.stopWeftd))
  } else if (hasWeftdUnit) await mustRun(['systemctl', 'disable', '--now', UNIT])
  await until(() => trustedPidsOf('weftd').length === 0, {
    what: 'weftd to end',
    cure: 'stop it, then run the same command again',
    deadlineMs
  })
}

/** Milliseconds since 1970 of the start of a process: the time of boot plus its ticks, of which a second has 100. */
export function startedAt(pid: number): number {
  const stat = contentOf(`/proc/${pid}/stat`) ?? ''
  const ticks = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  const [uptime = '0'] = (contentOf('/proc/uptime') ?? '').split(' ')
  return Date.now() - Number(uptime) * 1000 + ticks * 10
}
