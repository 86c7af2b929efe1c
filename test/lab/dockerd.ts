// A real dockerd on a host of the lab, given bridge address and MTU from that host's subnet.env, with an image of
// busybox to run.
import { copyFileSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Host } from './host.ts'
import { type Background, type Finished, type RunOptions, run, until } from './run.ts'

export interface DockerdOptions {
  /** Options in place of --bip and --mtu from subnet.env. */
  readonly network?: readonly string[]
  readonly args?: readonly string[]
}

/** Variables of an environment file: NAME=value lines. */
export function environmentFile(text: string): ReadonlyMap<string, string> {
  return new Map([...text.matchAll(/^([A-Z0-9_]+)=(.*)$/gm)].map(([, name, value]) => [String(name), String(value)]))
}

/** What Docker must be told of a host's subnet.env. */
export function dockerNetworkOptions(subnetEnv: string): readonly string[] {
  const variables = environmentFile(subnetEnv)
  const bip = variables.get('FLANNEL_SUBNET')
  const mtu = variables.get('FLANNEL_MTU')
  if (!bip || !mtu) throw new Error(`no FLANNEL_SUBNET or FLANNEL_MTU in subnet.env: ${JSON.stringify(subnetEnv)}`)
  return [`--bip=${bip}`, `--mtu=${mtu}`, `--ip-masq=${variables.get('FLANNEL_IPMASQ') !== 'true'}`]
}

export class Dockerd implements AsyncDisposable {
  readonly host: Host
  readonly directory: string
  readonly #args: readonly string[]
  #program: Background | undefined

  private constructor(host: Host, directory: string, args: readonly string[]) {
    this.host = host
    this.directory = directory
    this.#args = args
  }

  static async start(host: Host, options: DockerdOptions = {}): Promise<Dockerd> {
    const network = options.network ?? dockerNetworkOptions(readFileSync(host.path('/run/flannel/subnet.env'), 'utf8'))
    const directory = join(host.owner.directory, `docker-${host.name}`)
    mkdirSync(directory, { recursive: true })
    // Relative paths keep its containerd from starting. The parent group lets the lab remove what containers leave in
    // cgroups.
    const args = [
      `--data-root=${directory}/data`,
      `--exec-root=${directory}/exec`,
      `--pidfile=${directory}/pid`,
      `--host=unix://${directory}/docker.sock`,
      `--cgroup-parent=/${host.owner.name}`,
      '--shutdown-timeout=2',
      ...network,
      ...(options.args ?? [])
    ]
    const daemon = new Dockerd(host, directory, args)
    await daemon.launch()
    return daemon
  }

  async launch(): Promise<void> {
    const program = this.host.spawn('dockerd', this.#args, { name: 'dockerd' })
    this.#program = program
    const answers = async () => program.ended ?? (await this.docker(['version'], { check: false })).code === 0
    await until(answers, { what: 'dockerd to answer', everyMs: 100 }).catch(() => {})
    if (program.ended || !(await answers()))
      throw new Error(`dockerd on ${this.host.name} did not start:\n${this.log.slice(-3000)}`)
  }

  get log(): string {
    return this.#program?.text() ?? ''
  }

  docker(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    return this.host.exec('docker', ['--host', `unix://${this.directory}/docker.sock`, ...args], {
      timeoutMs: 60_000,
      ...options
    })
  }

  /** An image called busybox, from Debian's busybox-static. */
  async importBusybox(): Promise<void> {
    const root = join(this.directory, 'image')
    mkdirSync(join(root, 'bin'), { recursive: true })
    copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
    for (const name of ['sh', 'sleep', 'ping', 'ip', 'nc', 'wget', 'httpd', 'cat'])
      symlinkSync('busybox', join(root, 'bin', name))
    const archive = join(this.directory, 'image.tar')
    await run('tar', ['-C', root, '-cf', archive, '.'])
    await this.docker(['import', archive, 'busybox'])
  }

  /** Starts a container that sleeps, and tells its address. */
  async run(name: string, options: readonly string[] = []): Promise<string> {
    await this.docker([
      'run',
      '--detach',
      '--stop-timeout',
      '1',
      '--name',
      name,
      ...options,
      'busybox',
      '/bin/sleep',
      '1000000'
    ])
    const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'
    return (await this.docker(['inspect', '--format', format, name])).stdout.trim()
  }

  async stop(): Promise<void> {
    await this.#program?.stop(15_000)
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.launch()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { stdout } = await this.docker(['ps', '--quiet', '--all'], { check: false })
    const containers = stdout.split('\n').filter((id) => id !== '')
    if (containers.length > 0) await this.docker(['rm', '--force', ...containers], { check: false })
    await this.stop()
  }
}
