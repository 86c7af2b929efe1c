// Removes what a lab leaves in the kernel: its processes have WEFT_LAB=<name> in their environment, and all else ends
// with them.
import { readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type LabOwner, labOwner, startTicksOf, stateAndParentOf } from './names.ts'

export const labVariable = 'WEFT_LAB'

/** The directory of a lab's files. */
export function labDirectory(name: string): string {
  return join(tmpdir(), name)
}

/** This process, as labs' names tell it. */
export function thisProcess(): LabOwner {
  return { pid: process.pid, startTicks: startTicksOf(readFileSync('/proc/self/stat', 'utf8')) }
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    // Processes come and go while /proc is read.
    return undefined
  }
}

interface Seen {
  readonly pid: number
  readonly parent: number
  readonly lab: string | undefined
  readonly namespaces: readonly string[]
}

/** Every living process but this one. */
function processes(): readonly Seen[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .flatMap((entry) => {
      const stat = attempt(() => readFileSync(`/proc/${entry}/stat`, 'utf8'))
      if (stat === undefined) return []
      const { state, parent } = stateAndParentOf(stat)
      if (state === 'Z' || state === 'X') return []
      const environment = attempt(() => readFileSync(`/proc/${entry}/environ`, 'latin1')) ?? ''
      const lab = environment.split('\0').find((variable) => variable.startsWith(`${labVariable}=`))
      return [
        { pid: Number(entry), parent, lab: lab?.slice(labVariable.length + 1), namespaces: namespacesOf(Number(entry)) }
      ]
    })
}

/** The network and mount namespaces of a process, as `net:[4026531840]`. */
export function namespacesOf(pid: number): readonly string[] {
  return ['net', 'mnt'].flatMap((kind) => attempt(() => readlinkSync(`/proc/${pid}/ns/${kind}`)) ?? [])
}

/**
 * The processes of a lab: those that carry its mark, those in a namespace of one of them (containers lose the mark, and
 * so do programs that clean their environment), and the descendants of all these. What is another lab's by the same
 * rule is not: the kernel gives the number of a namespace that has gone to the next one, which may be a container's of
 * another lab (seen: one killed between its creation and its start).
 */
export function processesOf(name: string, namespaces: Iterable<string> = []): readonly number[] {
  const all = processes()
  const others = all.filter(({ lab }) => lab !== undefined && lab !== name)
  const theirs = belonging(
    all.filter(({ lab }) => lab !== name),
    others,
    []
  )
  const ours = all.filter(({ pid }) => !theirs.has(pid))
  const marked = ours.filter(({ lab }) => lab === name)
  return [...belonging(ours, marked, namespaces)]
}

function belonging(all: readonly Seen[], marked: readonly Seen[], namespaces: Iterable<string>): ReadonlySet<number> {
  const outside = new Set([...namespacesOf(process.pid), ...namespacesOf(1)])
  const inside = new Set([...namespaces, ...marked.flatMap((process) => process.namespaces)])
  const found = new Set(marked.map((process) => process.pid))
  for (;;) {
    const before = found.size
    for (const { pid, parent, namespaces: own } of all) {
      if (found.has(parent) || own.some((one) => inside.has(one) && !outside.has(one))) found.add(pid)
    }
    if (found.size === before) return found
  }
}

/**
 * Ends every process of a lab at once (SIGKILL), and removes its directory and control groups. Synchronous, for use
 * while this process exits.
 */
export function removeLab(name: string, namespaces: Iterable<string> = []): void {
  // The name becomes a path that is deleted with all that is in it.
  if (labOwner(name) === undefined) throw new Error(`${JSON.stringify(name)} is no lab's name, as weft-123-456-0 is`)
  const known = [...namespaces]
  for (let round = 0; round < 200; round++) {
    const pids = processesOf(name, known)
    if (pids.length === 0) break
    for (const pid of pids) attempt(() => process.kill(pid, 'SIGKILL'))
    // Ends take a moment; there is no way to wait for processes that are no children of ours.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
  }
  // A group stays busy for a moment after its last process has ended.
  for (let round = 0; round < 200; round++) {
    const groups = controlGroups(name)
    if (groups.length === 0) break
    if (round > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
    for (const group of groups) removeControlGroup(group)
  }
  rmSync(labDirectory(name), { recursive: true, force: true })
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

/** The names of all labs of which a process or a directory is there. */
export function labs(): readonly string[] {
  const running = processes().flatMap((process) => process.lab ?? [])
  return [...new Set([...running, ...readdirSync(tmpdir())])].filter((name) => labOwner(name) !== undefined)
}

function ownerLives(name: string): boolean {
  const owner = labOwner(name)
  if (!owner) return true
  const stat = attempt(() => readFileSync(`/proc/${owner.pid}/stat`, 'utf8'))
  return stat !== undefined && stateAndParentOf(stat).state !== 'Z' && startTicksOf(stat) === owner.startTicks
}

/** Labs whose owner is gone and which were not left up on purpose. */
export function deadLabs(): readonly string[] {
  return labs().filter(
    (name) => !ownerLives(name) && attempt(() => statSync(join(labDirectory(name), 'keep'))) === undefined
  )
}

/**
 * What is still there of a lab, one line each: processes, namespaces that something still holds, mounts, control
 * groups, files.
 */
export function leftoversOf(name: string, namespaces: Iterable<string> = []): readonly string[] {
  const known = new Set(namespaces)
  const lines = processesOf(name, known).map((pid) => {
    const command = attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
      ?.replaceAll('\0', ' ')
      .trim()
    return `process ${pid}: ${command}`
  })
  const mounts = attempt(() => readFileSync('/proc/self/mountinfo', 'utf8')) ?? ''
  for (const line of mounts.split('\n')) {
    if (line.includes(name) || [...known].some((one) => line.includes(one))) lines.push(`mount ${line}`)
  }
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
