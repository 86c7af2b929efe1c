// The lab: hosts as network namespaces with mounts and names of their own, on an underlay of bridges and a router,
// taken away whatever happens.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Holder } from './holder.ts'
import { Host, type HostOptions } from './host.ts'
import type { Place, PlaceOwner } from './lab-scene.ts'
import { labName } from './names.ts'
import { PidNamespace } from './pid-namespace.ts'
import type { Background } from './run.ts'
import {
  deadLabs,
  labDirectory,
  leftoversOf,
  rememberFirstProcess,
  removeFiles,
  removeLab,
  thisProcess
} from './sweep.ts'
import { Underlay } from './underlay.ts'

export interface LabOptions {
  /** How many hosts on segment 0, 1, …, or each host by itself; [2] when absent. Hosts are called h1, h2, … */
  readonly hosts?: readonly number[] | readonly HostOptions[]
  /** Of bridges, router and hosts' eth0; 1500 when absent. */
  readonly mtu?: number
  /** Underlay addresses fd00:10::/64 and so on besides 192.168.10.0/24; false when absent. */
  readonly ipv6?: boolean
}

let serial = 0
/** Labs of this process that are up: ended by its signals and its exit. */
const open = new Set<Lab>()
let watching = false

/** `await using lab = await Lab.start({ hosts: [2, 1] })`: two hosts on one link, a third behind a router. */
export class Lab implements PlaceOwner, AsyncDisposable {
  readonly name: string
  readonly directory: string
  readonly processes: PidNamespace
  readonly #programs: Background[] = []
  readonly #hosts: Host[] = []
  readonly #beforeRemoval: (() => void)[] = []
  #underlay: Underlay | undefined
  #kept = false

  private constructor() {
    this.name = labName(thisProcess(), serial++)
    this.directory = labDirectory(this.name)
    mkdirSync(this.directory, { mode: 0o755 })
    this.processes = new PidNamespace()
    rememberFirstProcess(this.name, this.processes.pid)
    open.add(this)
  }

  /** Removes what dead labs left, then makes the namespaces. Needs root. Whatever fails on the way, nothing is left. */
  static async start(options: LabOptions = {}): Promise<Lab> {
    if (process.getuid?.() !== 0)
      throw new Error('the lab makes network namespaces, which needs root; cure: run it as root')
    for (const name of deadLabs()) removeLab(name)
    watchProcess()
    const lab = new Lab()
    try {
      lab.#underlay = await Underlay.make(lab, { mtu: options.mtu ?? 1500, ipv6: options.ipv6 ?? false })
      const { hosts = [2] } = options
      const wanted = hosts.flatMap((entry, segment): readonly HostOptions[] =>
        typeof entry === 'number' ? Array.from({ length: entry }, () => ({ segment })) : [entry]
      )
      for (const host of wanted) await lab.addHost(host)
      return lab
    } catch (error) {
      await lab[Symbol.asyncDispose]()
      throw error
    }
  }

  get hosts(): readonly Host[] {
    return this.#hosts
  }

  /** The namespace with the bridges. */
  get switch(): Place {
    return this.underlay.switch
  }

  /** The namespace that forwards between segments and is every host's default gateway. */
  get router(): Place {
    return this.underlay.router
  }

  get underlay(): Underlay {
    if (!this.#underlay) throw new Error(`${this.name} has no underlay yet`)
    return this.#underlay
  }

  /** The n-th host, from 1, or the one with this name. */
  host(which: number | string): Host {
    const host = typeof which === 'number' ? this.#hosts[which - 1] : this.#hosts.find(({ name }) => name === which)
    if (!host)
      throw new Error(`no host ${which} in ${this.name}; there are ${this.#hosts.map(({ name }) => name).join(', ')}`)
    return host
  }

  /** One more host: a node that joins. */
  async addHost(options: HostOptions = {}): Promise<Host> {
    const name = options.name ?? `h${this.#hosts.length + 1}`
    const host = await Host.make(this, name, { ...options, index: this.#hosts.length })
    this.#hosts.push(host)
    return host
  }

  /** A namespace of this lab, kept by a process. For the lab's own parts. */
  async hold(name: string, script: string): Promise<Holder> {
    return Holder.start(this.processes, name, script)
  }

  adopt(program: Background): void {
    this.#programs.push(program)
  }

  /** Calls before the files of the lab, logs among them, are removed. */
  beforeRemoval(callback: () => void): void {
    this.#beforeRemoval.push(callback)
  }

  /** Leaves everything up when this process ends. `removeLab(name)` of sweep.ts takes it away. */
  keep(): void {
    this.#kept = true
    writeFileSync(join(this.directory, 'keep'), '')
    this.processes.keep()
    for (const program of this.#programs) program.release()
    open.delete(this)
  }

  /** What is still there of this lab; empty after disposal, or something is wrong. */
  leftovers(): readonly string[] {
    return leftoversOf(this.name)
  }

  /** Ends all at once, without waiting for anybody's goodbye. */
  removeNow(): void {
    open.delete(this)
    this.processes.end()
    for (const callback of this.#beforeRemoval.splice(0)) callback()
    removeFiles(this.name)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#kept) return
    await Promise.allSettled(this.#programs.map((program) => program.stop(1_000)))
    this.processes.end()
    await this.processes.ended
    this.removeNow()
  }
}

function watchProcess(): void {
  if (watching) return
  watching = true
  const removeAll = () => {
    for (const lab of open) lab.removeNow()
  }
  process.on('exit', removeAll)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => {
      removeAll()
      process.kill(process.pid, signal)
    })
  }
}
