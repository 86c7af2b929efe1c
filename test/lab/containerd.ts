// A real containerd with runc on a host of the lab, spoken to through CRI as kubelet does; pods get their network from
// /etc/cni/net.d of that host.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BIN } from './cluster.ts'
import type { Json } from './cni.ts'
import { Cri, type SandboxRequest, type SandboxStatus } from './cri.ts'
import type { Host } from './host.ts'
import { busyboxArchive, busyboxImage } from './image.ts'
import { type Background, until } from './run.ts'

/** What an administrator writes for a node with nothing but Weft. */
export const weftList: Json = {
  cniVersion: '1.0.0',
  name: 'lab',
  plugins: [{ type: 'weft', capabilities: { portMappings: true, bandwidth: true } }]
}

export interface ContainerdOptions {
  /** The network configuration list; `weftList` when absent. null: none is written. */
  readonly list?: Json | null
  /** Where plugins are; dist/cni when absent. */
  readonly binDir?: string
  /** How containerd keeps layers; 'native' (whole copies, works on every file system) when absent. */
  readonly snapshotter?: 'native' | 'overlayfs'
}

export type CriPod = SandboxStatus & {
  readonly request: SandboxRequest
  readonly id: string
  readonly container: string
}

/** Writes a list as installers do: whole under another name, then renamed, so that nobody reads half of it. */
export async function writeList(host: Host, list: Json, name = '10-weft.conflist'): Promise<void> {
  const path = `/etc/cni/net.d/${name}`
  await host.sh(`cat > ${path}.new <<'END'\n${JSON.stringify(list)}\nEND\nmv ${path}.new ${path}`)
}

function configuration(directory: string, binDir: string, snapshotter: string): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  return `version = 2
root = "${directory}/root"
state = "/run/containerd-lab"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.opt"]

[grpc]
address = "${directory}/sock"

[${cri}]
sandbox_image = "${busyboxImage}"
stream_server_address = "127.0.0.1"
disable_apparmor = true
restrict_oom_score_adj = true

[${cri}.containerd]
snapshotter = "${snapshotter}"
default_runtime_name = "runc"

[${cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[${cri}.cni]
bin_dir = "${binDir}"
conf_dir = "/etc/cni/net.d"
`
}

export class Containerd implements AsyncDisposable {
  readonly host: Host
  readonly cri: Cri
  readonly directory: string
  readonly #snapshotter: string
  #program: Background | undefined
  #pods = 0

  private constructor(host: Host, directory: string, snapshotter: string) {
    this.host = host
    this.directory = directory
    this.#snapshotter = snapshotter
    // The lab removes the control groups under its name.
    this.cri = new Cri(`${directory}/sock`, `/${host.owner.name}`)
  }

  static async start(host: Host, options: ContainerdOptions = {}): Promise<Containerd> {
    const { list = weftList, binDir = BIN, snapshotter = 'native' } = options
    const directory = join(host.owner.directory, `cd-${host.name}`)
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'config.toml'), configuration(directory, binDir, snapshotter))
    if (list) await writeList(host, list)
    const daemon = new Containerd(host, directory, snapshotter)
    await daemon.launch()
    await daemon.importImages(await busyboxArchive(directory))
    return daemon
  }

  /** Takes the images of an OCI archive, under the names that it gives them. */
  async importImages(archive: string): Promise<void> {
    const ctr = ['--address', `${this.directory}/sock`, '--namespace', 'k8s.io']
    const words = [...ctr, 'images', 'import', '--snapshotter', this.#snapshotter, archive]
    await this.host.exec('ctr', words, { timeoutMs: 300_000 })
  }

  /** Starts the process and waits until it answers CRI calls. */
  async launch(): Promise<void> {
    const program = this.host.spawn('containerd', ['--config', join(this.directory, 'config.toml')], {
      name: 'containerd'
    })
    this.#program = program
    const answers = async () => program.ended ?? (await this.cri.version())
    await until(answers, { what: 'containerd to answer', everyMs: 50 }).catch((cause: unknown) => {
      throw new Error(`containerd on ${this.host.name} does not answer:\n${this.log.slice(-3000)}`, { cause })
    })
    if (program.ended) throw new Error(`containerd on ${this.host.name} ended:\n${this.log.slice(-3000)}`)
  }

  get log(): string {
    return this.#program?.text() ?? ''
  }

  /** A pod with one container that runs `command`. */
  async pod(
    more: Omit<SandboxRequest, 'name'> = {},
    command: readonly string[] = ['/bin/sleep', '1000000']
  ): Promise<CriPod> {
    const request = { name: `p${this.#pods++}`, ...more }
    const id = await this.cri.runPodSandbox(request)
    const container = await this.cri.startContainer(id, request, busyboxImage, command)
    return { ...(await this.cri.podSandboxStatus(id)), request, id, container }
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#program?.kill(signal)
    await this.#program?.stop(15_000)
  }

  /** Pods go on meanwhile: they belong to shims. */
  async restart(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    await this.stop(signal)
    await this.launch()
  }

  /**
   * Removes pods one by one, so that shims end and unmount, then the daemon. What does not go that way goes with the
   * lab.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#program && !this.#program.ended) {
      const pods = await this.cri.podSandboxes().catch(() => [])
      for (const pod of pods) {
        await this.cri.stopPodSandbox(pod).catch(() => {})
        await this.cri.removePodSandbox(pod).catch(() => {})
      }
    }
    await this.stop()
  }
}
