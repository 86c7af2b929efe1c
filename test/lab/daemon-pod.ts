// The DaemonSet's pod on a host of the lab, handed to containerd field by field as kubelet does: image, mounts,
// capabilities, profile, read-only root.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { DaemonSet } from 'kubernetes-types/apps/v1.js'
import type { ConfigMap, Container, PodSpec } from 'kubernetes-types/core/v1.js'
import { parse } from 'yaml'
import type { Containerd } from './containerd.ts'
import { type ContainerWish, type Cri, ON_HOST, type SandboxRequest } from './cri.ts'
import { run, until } from './run.ts'

const repository = fileURLToPath(new URL('../../', import.meta.url))
const read = <T>(name: string): T => parse(readFileSync(`${repository}deploy/${name}`, 'utf8')) as T

/** kubelet's defaults for a container without `procMount` (pkg/securitycontext). */
const MASKED = [
  ...['/proc/asound', '/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list'],
  ...['/proc/timer_stats', '/proc/sched_debug', '/proc/scsi', '/sys/firmware']
]
const READ_ONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** The pod of 40-daemonset.yaml, to be changed by a test. */
export function daemonPodSpec(): PodSpec {
  const spec = read<DaemonSet>('40-daemonset.yaml').spec?.template.spec
  if (spec === undefined) throw new Error('deploy/40-daemonset.yaml has no pod')
  return structuredClone(spec)
}

/** Builds the image and returns its archive. */
export async function weftImage(): Promise<string> {
  const { stdout } = await run(`${repository}scripts/image`, [], { timeoutMs: 600_000 })
  return stdout.trim().split('\n').at(-1) ?? ''
}

export type DaemonPodOptions = {
  readonly spec: PodSpec
  /** In place of --kube-subnet-mgr, where there is no API server. */
  readonly storeArgs: readonly string[]
}

export class DaemonPod implements AsyncDisposable {
  readonly #runtime: Containerd
  readonly #options: DaemonPodOptions
  readonly #request: SandboxRequest
  readonly #configuration: string
  #sandbox = ''
  #containers = 0

  constructor(runtime: Containerd, name: string, options: DaemonPodOptions) {
    this.#runtime = runtime
    this.#options = options
    const logDirectory = join(runtime.directory, `logs-${name}`)
    mkdirSync(logDirectory, { recursive: true })
    this.#request = { name, onHost: true, logDirectory }
    this.#configuration = join(runtime.directory, `config-${name}`)
    mkdirSync(this.#configuration, { recursive: true })
    for (const [file, text] of Object.entries(read<ConfigMap>('30-config.yaml').data ?? {}))
      writeFileSync(join(this.#configuration, file), text)
  }

  get #cri(): Cri {
    return this.#runtime.cri
  }

  /** Makes the pod's sandbox and, as kubelet would, what its hostPath volumes want. */
  async make(): Promise<void> {
    for (const { hostPath } of this.#options.spec.volumes ?? []) {
      if (hostPath?.type === 'DirectoryOrCreate') await this.#runtime.host.exec('mkdir', ['-p', hostPath.path])
      if (hostPath?.type === 'FileOrCreate') await this.#runtime.host.exec('touch', [hostPath.path])
    }
    this.#sandbox = await this.#cri.runPodSandbox(this.#request)
  }

  /** Runs the init container to its end; resolves with its exit status and what it said. */
  async install(): Promise<{ readonly exit: number; readonly log: string }> {
    const [container] = this.#options.spec.initContainers ?? []
    if (container === undefined) throw new Error('the pod has no init container')
    const { id, log } = await this.#start(container)
    const ended = async () => [await this.#cri.exitCode(id)].filter((code) => code !== undefined)
    const [exit = -1] = await until(async () => ((await ended()).length > 0 ? await ended() : undefined), {
      what: 'the end of the install step',
      deadlineMs: 120_000,
      everyMs: 50
    })
    return { exit, log: log() }
  }

  /** Starts weftd, without waiting for anything. */
  async start(): Promise<RunningContainer> {
    const [container] = this.#options.spec.containers
    if (container === undefined) throw new Error('the pod has no container')
    const { command = [] } = container
    const replaced = command.flatMap((word) => (word === '--kube-subnet-mgr' ? this.#options.storeArgs : [word]))
    const alone = replaced.filter((word) => !/^--(kube-daemonset|net-config-path)/.test(word))
    return this.#start({ ...container, command: alone })
  }

  async #start(container: Container): Promise<RunningContainer> {
    const logPath = `${container.name}-${this.#containers++}.log`
    const id = await this.#cri.startContainer(
      this.#sandbox,
      this.#request,
      container.image ?? '',
      this.#wish(container, logPath),
      logPath.slice(0, -4)
    )
    const path = join(this.#request.logDirectory ?? '', logPath)
    return {
      id,
      // Lines begin with a time, the stream and whether the line is whole.
      log: () => readFileSync(path, 'utf8').replaceAll(/^\S+ std(?:out|err) [FP] /gm, ''),
      exitCode: () => this.#cri.exitCode(id),
      stop: () => this.#cri.stopContainer(id, 30)
    }
  }

  #wish(
    { command = [], volumeMounts = [], securityContext = {}, resources, env = [] }: Container,
    logPath: string
  ): ContainerWish {
    const mounts = volumeMounts.map(({ name, mountPath, readOnly = false, mountPropagation }) => {
      const volume = this.#options.spec.volumes?.find((each) => each.name === name)
      const hostPath = volume?.hostPath?.path ?? this.#configuration
      const propagation = mountPropagation === 'HostToContainer' ? 1 : 0
      return { containerPath: mountPath, hostPath, isReadOnly: readOnly, propagation }
    })
    return {
      command,
      logPath,
      mounts,
      environment: env.map(({ name, value }) => ({ key: name, value: value ?? this.#runtime.host.name })),
      linux: {
        resources: { memoryLimitBytes: bytesOf(String(resources?.limits?.memory ?? '0')) },
        securityContext: {
          namespaces: ON_HOST,
          isRootReadOnly: securityContext.readOnlyRootFilesystem ?? false,
          noNewPrivileges: securityContext.allowPrivilegeEscalation === false,
          seccomp: { type: 0 }
        }
      },
      lists: {
        add: securityContext.capabilities?.add ?? [],
        drop: securityContext.capabilities?.drop ?? [],
        masked: MASKED,
        readOnly: READ_ONLY
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cri.stopPodSandbox(this.#sandbox).catch(() => undefined)
    await this.#cri.removePodSandbox(this.#sandbox).catch(() => undefined)
  }
}

export type RunningContainer = {
  readonly id: string
  /** Everything it said so far. */
  log(): string
  exitCode(): Promise<number | undefined>
  /** SIGTERM, and SIGKILL after half a minute. */
  stop(): Promise<void>
}

const bytesOf = (quantity: string): number => Number(/^(\d+)Mi$/.exec(quantity)?.[1] ?? 0) << 20

/** Files of a host's directory, as this process sees them. */
export const filesIn = (path: string): readonly string[] => readdirSync(path).sort()
