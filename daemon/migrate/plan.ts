// The plan of a move: from what is found on a node, the steps, what stays, what is lost on the way, and what is missing.
import type { Commands, Facts } from './facts.ts'
import { type Settings, settingsFrom, shownSettings } from './settings.ts'

export const APPLY = [
  'record',
  'settings',
  'stop-flanneld',
  'start-weftd',
  'prove',
  'plugins',
  'conflist',
  'firewall'
] as const
export const ROLLBACK = [
  ...['conflist-back', 'plugins-back', 'stop-weftd', 'settings-away', 'start-flanneld', 'prove-flanneld'],
  ...['firewall-back', 'record-away']
] as const
export type StepName = (typeof APPLY)[number] | (typeof ROLLBACK)[number]
export type Direction = 'apply' | 'rollback'

export type Step = { readonly name: string; readonly text: string }
export type Fault = { readonly message: string; readonly cure: string }

export type Plan = {
  readonly direction: Direction
  /** What is found here. */
  readonly found: readonly string[]
  readonly steps: readonly Step[]
  readonly stays: readonly string[]
  /** What pods lose while the daemons change. */
  readonly gap: string
  /** weftd's settings, without secrets. */
  readonly settings: readonly string[]
  /** Nothing is changed as long as there is one. */
  readonly faults: readonly Fault[]
}

export type Places = {
  readonly cniConfDir: string
  readonly cniBinDir: string
  readonly cniSourceDir: string
  readonly migrateDir: string
}

const NO_GAP =
  'none: routes and tunnels are in the kernel and outlive either daemon; new pods wait for the second or two in which no daemon runs'

/** weftd's settings on this node. */
export const settingsOf = (facts: Facts, places: Places): ReturnType<typeof settingsFrom> =>
  settingsFrom(
    facts.flanneld ?? { arguments: [], environment: {} },
    facts.conflist === undefined && facts.record?.conflist === undefined
      ? undefined
      : { cniConfDir: places.cniConfDir, cniConfSource: `${places.migrateDir}/cni-conf.json` }
  )

export const planOf = (direction: Direction, facts: Facts, commands: Commands, places: Places): Plan =>
  direction === 'apply' ? planApply(facts, commands, places) : planRollback(facts, commands, places)

function planApply(facts: Facts, commands: Commands, places: Places): Plan {
  const { settings, faults } = settingsOf(facts, places)
  return {
    direction: 'apply',
    found: foundText(facts),
    steps: APPLY.map((name) => ({ name, text: applyText(name, facts, commands, places) })),
    stays: staying(facts),
    gap: gapText(facts),
    settings: shownSettings(settings),
    faults: [...applyFaults(facts, commands, places, settings), ...faults.map(asFault)]
  }
}

function planRollback(facts: Facts, commands: Commands, places: Places): Plan {
  const { flanneld } = facts
  const missing: Fault[] = []
  if (facts.record === undefined)
    missing.push({
      message: `there is no record of a move in ${places.migrateDir}`,
      cure: 'nothing is to be taken back; set --migrate-dir if the move was made with another one'
    })
  if (flanneld?.runBy.kind === 'nobody' && !commands.startFlanneld) missing.push(commandMissing('start', 'flanneld'))
  if (!facts.hasWeftdUnit && !commands.stopWeftd && facts.weftdAnswers) missing.push(commandMissing('stop', 'weftd'))
  return {
    direction: 'rollback',
    found: foundText(facts),
    steps: ROLLBACK.map((name) => ({ name, text: rollbackText(name, facts, commands, places) })),
    stays: staying(facts),
    gap: gapText(facts),
    settings: [],
    faults: missing
  }
}

const asFault = (message: string): Fault => ({
  message,
  cure: 'remove that flag from flanneld, or set up weftd by hand (docs/migrate.md)'
})

const commandMissing = (verb: string, daemon: 'flanneld' | 'weftd'): Fault => ({
  message: `no unit of systemd runs ${daemon}, so weftctl does not know how to ${verb} it`,
  cure: `name the command with --${verb}-${daemon}='PROGRAM ARGUMENT …' (docs/migrate.md)`
})

function applyFaults(facts: Facts, commands: Commands, places: Places, settings: Settings): readonly Fault[] {
  const { flanneld, devices } = facts
  const found: Fault[] = []
  const add = (isFault: boolean, message: string, cure: string) => void (isFault && found.push({ message, cure }))
  if (flanneld === undefined) {
    add(true, 'no flanneld runs in this network namespace', 'start flanneld, or install Weft as on a new node')
    return found
  }
  if (flanneld.runBy.kind === 'kubernetes') {
    const cure = 'run "kubectl weft migrate plan" where kubectl reaches the cluster'
    add(true, 'Kubernetes runs flanneld on this node and would start it again', cure)
    return found
  }
  if (flanneld.runBy.kind === 'nobody' && !commands.stopFlanneld) found.push(commandMissing('stop', 'flanneld'))
  if (!facts.hasWeftdUnit && !commands.startWeftd) found.push(commandMissing('start', 'weftd'))
  add(facts.flanneldPids.length > 1, `several flanneld run here (${facts.flanneldPids.join(', ')})`, 'stop all but one')
  for (const { name, backend } of devices)
    add(
      backend === undefined,
      `${name} belongs to a backend of flannel that this weftd does not have`,
      'keep flanneld, or change Backend in the network configuration first (docs/flannel.md)'
    )
  add(
    facts.subnet.length === 0,
    'flanneld has no subnet yet: there is no valid subnet.env',
    'wait until flanneld has its lease, or name its file with --subnet-file'
  )
  if (facts.conflist !== undefined)
    add(
      !facts.hasPluginSource,
      `there are no plugins of Weft in ${places.cniSourceDir}`,
      'unpack them there, or name their directory with --cni-source-dir'
    )
  const store = settings.WEFTD_STORE ?? 'etcd'
  add(store === 'embedded', 'flanneld has no embedded store', 'remove FLANNELD_STORE')
  return found
}

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`

function foundText(facts: Facts): readonly string[] {
  const { flanneld, record, conflist, devices } = facts
  const by = flanneld === undefined ? '' : `, ${runText(facts)}`
  return [
    facts.flanneldPids.length > 0 ? `flanneld runs (pid ${facts.flanneldPids.join(', ')}${by})` : 'no flanneld runs',
    facts.weftdAnswers ? 'weftd runs' : 'no weftd runs',
    ...(record === undefined ? [] : [recordText(record)]),
    `subnet ${facts.subnet.join(' and ') || '(none)'}${facts.ipMasq ? ', masqueraded by the daemon' : ''}`,
    ...devices.map(({ name, mac }) => `device ${name}, MAC ${mac}`),
    ...(conflist === undefined
      ? ["no CNI configuration list with flannel's plugin"]
      : [`${conflist.path}: network ${conflist.network}, plugins ${conflist.types.join(', ')}`]),
    `${count(facts.pods, 'pod')} with a reserved address`,
    ...(facts.hostPortChains > 0 ? [`${count(facts.hostPortChains, 'pod')} with host ports by portmap`] : []),
    ...(facts.chains.length > 0 ? [`in the firewall: ${facts.chains.join(', ')}`] : [])
  ]
}

const recordText = ({ direction, isComplete, at }: NonNullable<Facts['record']>): string =>
  `${direction} of ${at.slice(0, 19)}Z, ${isComplete ? 'complete' : 'not finished: the same command again continues'}`

function runText({ flanneld }: Facts): string {
  if (flanneld?.runBy.kind === 'unit') return flanneld.runBy.unit
  return flanneld?.runBy.kind === 'kubernetes' ? 'in a pod' : 'a process of no unit'
}

function applyText(
  name: (typeof APPLY)[number],
  { flanneld, conflist, record, foreignPlugins, chains, hasWeftdUnit }: Facts,
  { stopFlanneld, startWeftd }: Commands,
  { migrateDir, cniBinDir, cniConfDir }: Places
): string {
  const list = conflist ?? record?.conflist
  const unit = flanneld?.runBy.kind === 'unit' ? flanneld.runBy.unit : 'flanneld (with the command of --stop-flanneld)'
  const dropIn = hasWeftdUnit && !startWeftd ? ', and name it in a drop-in of weftd.service' : ''
  const replaced = foreignPlugins.length > 0 ? `, in place of ${foreignPlugins.join(', ')}` : ''
  const texts: Readonly<Record<typeof name, string>> = {
    record: `keep flanneld's command line, ${list?.path ?? 'no list'} byte by byte and the executables that are replaced in ${migrateDir}`,
    settings: `write weftd's settings to /etc/weft/migrated.env${dropIn}`,
    'stop-flanneld': stopFlanneld ? `run ${stopFlanneld}` : `stop and disable ${unit}`,
    'start-weftd': startWeftd ? `run ${startWeftd}` : 'enable and start weftd.service',
    prove: 'wait until weftd is ready and its probes reach every other node',
    plugins: list
      ? `install Weft's plugins in ${cniBinDir}${replaced}`
      : 'install no plugins: flannel has no list here',
    conflist: list
      ? `remove ${list.path}, once weftd has written its content to ${cniConfDir}/10-weft.conflist`
      : 'leave the CNI configuration as it is',
    firewall: chains.length > 0 ? `remove ${chains.join(', ')}, once weftd's own rules are there` : 'leave the firewall'
  }
  return texts[name]
}

function rollbackText(
  name: string,
  { flanneld, record, hasWeftdUnit }: Facts,
  { startFlanneld, stopWeftd }: Commands,
  { cniBinDir, cniConfDir, migrateDir }: Places
): string {
  const unit = flanneld?.runBy.kind === 'unit' ? flanneld.runBy.unit : 'flanneld (with the command of --start-flanneld)'
  const texts: Readonly<Record<string, string>> = {
    'conflist-back': `restore ${record?.conflist?.path ?? 'no list'}, and have weftd remove ${cniConfDir}/10-weft.conflist`,
    'plugins-back': `restore ${record?.plugins.join(', ') || 'no executable'} in ${cniBinDir}, and remove Weft's others`,
    'stop-weftd': stopWeftd ? `run ${stopWeftd}` : `stop and disable ${hasWeftdUnit ? 'weftd.service' : 'weftd'}`,
    'settings-away': 'remove /etc/weft/migrated.env and the drop-in of weftd.service',
    'start-flanneld': startFlanneld ? `run ${startFlanneld}` : `start ${unit}`,
    'prove-flanneld': 'wait until flanneld has written subnet.env with the same subnet',
    'firewall-back': "remove weftd's masquerade and forward rules, since flanneld's are there by now",
    'record-away': `remove ${migrateDir}`
  }
  return texts[name] ?? name
}

const staying = ({ subnet, devices, pods }: Facts): readonly string[] => [
  `the lease of ${subnet.join(' and ') || 'this node'}`,
  ...devices.map(({ name, mac }) => `${name} with its MAC ${mac}, addresses, neighbours and routes`),
  `${count(pods, 'pod')} with interfaces, addresses and host ports, on their bridge`
]

function gapText({ devices }: Facts): string {
  const dying = devices.filter(({ outlivesFlanneld }) => !outlivesFlanneld)
  if (dying.length === 0) return NO_GAP
  return `${dying.map(({ name }) => name).join(', ')} ends with flanneld: pods of this node reach other nodes again after less than two seconds; pods on this node reach each other all the time`
}
