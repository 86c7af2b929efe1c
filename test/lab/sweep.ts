// Removes what a lab leaves: its processes end with the first one of their PID namespace, whose number is in a file of
// the lab's directory; that directory and control groups are all that can stay behind.
import { readdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LabOwner, labOwner, startTicksOf, stateAndParentOf } from './names.ts'

/** The directory of a lab's files. */
export function labDirectory(name: string): string {
  return join(tmpdir(), name)
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    // Processes end and files go while they are read.
    return undefined
  }
}

/** A process, by a pair that the kernel gives to no other one. */
function identityOf(pid: number): LabOwner {
  return { pid, startTicks: startTicksOf(readFileSync(`/proc/${pid}/stat`, 'utf8')) }
}

function isRunning({ pid, startTicks }: LabOwner): boolean {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'utf8'))
  return stat !== undefined && stateAndParentOf(stat).state !== 'Z' && startTicksOf(stat) === startTicks
}

/** This process, as labs' names tell it. */
export const thisProcess = (): LabOwner => identityOf(process.pid)

const firstProcessFile = (name: string): string => join(labDirectory(name), 'first-process')

/** Remembers the first process of a lab's PID namespace, for a lab that outlives its owner. */
export function rememberFirstProcess(name: string, pid: number): void {
  writeFileSync(firstProcessFile(name), JSON.stringify(identityOf(pid)))
}

/** The first process of a lab's PID namespace while it runs: all others of the lab end with it. */
export function firstProcessOf(name: string): number | undefined {
  const first = attempt(() => JSON.parse(readFileSync(firstProcessFile(name), 'utf8')) as LabOwner)
  return first !== undefined && isRunning(first) ? first.pid : undefined
}

const napMs = 10
const nap = (): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, napMs)

/**
 * Ends every process of a lab at once (SIGKILL), and removes its directory and control groups. Synchronous, for use
 * while this process exits.
 */
export function removeLab(name: string): void {
  // The name becomes a path that is deleted with all that is in it.
  if (labOwner(name) === undefined) throw new Error(`${JSON.stringify(name)} is no lab's name, as weft-123-456-0 is`)
  for (let round = 0; round < 200; round++) {
    const pid = firstProcessOf(name)
    if (pid === undefined) break
    if (round === 0) attempt(() => process.kill(pid, 'SIGKILL'))
    nap()
  }
  removeFiles(name)
}

/** The control groups and the directory of a lab whose processes have been killed. */
export function removeFiles(name: string): void {
  // A group stays busy for a moment after its last process has ended.
  for (let round = 0; round < 200; round++) {
    const groups = controlGroups(name)
    if (groups.length === 0) break
    if (round > 0) nap()
    for (const group of groups) removeControlGroup(group)
  }
  rmSync(labDirectory(name), { recursive: true, force: true, maxRetries: 10 })
}

/** The control groups that were made under a lab's name (dockerd is given it as the parent of its containers). */
function controlGroups(name: string): readonly string[] {
  const root = '/sys/fs/cgroup'
  const hierarchies = attempt(() => readdirSync(root)) ?? []
  return [root, ...hierarchies.map((entry) => join(root, entry))]
    .map((hierarchy) => join(hierarchy, name))
    .filter((group) => attempt(() => statSync(group).isDirectory()) === true)
}

function removeControlGroup(group: string): void {
  for (const entry of attempt(() => readdirSync(group, { withFileTypes: true })) ?? []) {
    if (entry.isDirectory()) removeControlGroup(join(group, entry.name))
  }
  attempt(() => rmdirSync(group))
}

/** The names of all labs that have a directory. */
export const labs = (): readonly string[] => readdirSync(tmpdir()).filter((name) => labOwner(name) !== undefined)

function ownerLives(name: string): boolean {
  const owner = labOwner(name)
  return owner === undefined || isRunning(owner)
}

/** Labs whose owner is gone and which were not left up on purpose. */
export function deadLabs(): readonly string[] {
  return labs().filter(
    (name) => !ownerLives(name) && attempt(() => statSync(join(labDirectory(name), 'keep'))) === undefined
  )
}

/** What is still there of a lab, one line each: processes, mounts, links, control groups, files. */
export function leftoversOf(name: string): readonly string[] {
  const first = firstProcessOf(name)
  const lines = first === undefined ? [] : [`processes, in the PID namespace of process ${first}`]
  const mounts = attempt(() => readFileSync('/proc/self/mountinfo', 'utf8')) ?? ''
  for (const line of mounts.split('\n')) if (line.includes(name)) lines.push(`mount ${line}`)
  const links = attempt(() => readdirSync('/sys/class/net')) ?? []
  for (const link of links) {
    if (attempt(() => readFileSync(`/sys/class/net/${link}/ifalias`, 'utf8'))?.trim() === name)
      lines.push(`link ${link}`)
  }
  lines.push(...controlGroups(name).map((group) => `control group ${group}`))
  if (attempt(() => statSync(labDirectory(name)))) lines.push(`directory ${labDirectory(name)}`)
  return lines.map((line) => `${name}: ${line}`)
}

/** What dead labs left behind, over the whole machine. */
export function leftovers(): readonly string[] {
  return deadLabs().flatMap((name) => leftoversOf(name))
}
