// podman with its CNI back end on a host of the lab: containers on a network whose conflist is ours.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BIN } from './cluster.ts'
import type { Json } from './cni.ts'
import type { Host } from './host.ts'
import { busyboxArchive, busyboxImage } from './image.ts'
import type { Finished, RunOptions } from './run.ts'

/** podman runs no network without a plugin that announces the list's version, and reads results as 0.4.0. */
export const podmanList: Json = {
  cniVersion: '0.4.0',
  name: 'lab',
  plugins: [{ type: 'weft', capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true } }]
}

export interface PodmanOptions {
  /** `podmanList` when absent. */
  readonly list?: Json
  /** Folders of plugins; dist/cni when absent. */
  readonly pluginDirs?: readonly string[]
}

function configuration(directory: string, pluginDirs: readonly string[]): string {
  return `[network]
network_backend = "cni"
cni_plugin_dirs = [${pluginDirs.map((path) => JSON.stringify(path)).join(', ')}]
network_config_dir = "${directory}/net.d"
default_network = "lab"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "/run/libpod-lab"

[containers]
# The lab's kernel may forbid a lower value than the parent's, and the default limits.
oom_score_adj = 0
default_ulimits = []
apparmor_profile = "unconfined"
`
}

export class Podman implements AsyncDisposable {
  readonly host: Host
  readonly directory: string

  private constructor(host: Host, directory: string) {
    this.host = host
    this.directory = directory
  }

  static async start(host: Host, { list = podmanList, pluginDirs = [BIN] }: PodmanOptions = {}): Promise<Podman> {
    const directory = join(host.owner.directory, `podman-${host.name}`)
    mkdirSync(join(directory, 'net.d'), { recursive: true })
    writeFileSync(join(directory, 'containers.conf'), configuration(directory, pluginDirs))
    const podman = new Podman(host, directory)
    podman.use(list)
    const archive = await busyboxArchive(directory)
    await podman.podman(['load', '--input', archive])
    return podman
  }

  /** Writes the list of the only network; podman reads it with every command. */
  use(list: Json): void {
    writeFileSync(join(this.directory, 'net.d/10-weft.conflist'), JSON.stringify(list))
  }

  podman(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const { directory } = this
    const words = [`--root=${directory}/root`, '--runroot=/run/podman-lab', '--storage-driver=vfs', ...args]
    return this.host.exec('podman', words, {
      timeoutMs: 120_000,
      ...options,
      env: { ...options.env, CONTAINERS_CONF: `${directory}/containers.conf`, TMPDIR: directory }
    })
  }

  /** Starts a container of the lab's image, and tells its address. Its control groups are made under the lab's name. */
  async run(
    name: string,
    options: readonly string[] = [],
    command: readonly string[] = ['/bin/sleep', '1000000']
  ): Promise<string> {
    const { name: parent } = this.host.owner
    const words = ['run', '--detach', '--network=lab', `--cgroup-parent=/${parent}`, `--name=${name}`, ...options]
    await this.podman([...words, busyboxImage, ...command])
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
    return (await this.podman(['inspect', '--format', format, name])).stdout.trim()
  }

  async remove(name: string): Promise<void> {
    await this.podman(['rm', '--force', '--time', '0', name])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.podman(['rm', '--force', '--all', '--time', '0'], { check: false })
  }
}
