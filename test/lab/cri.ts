// Kubernetes' container runtime interface (CRI v1) as kubelet and crictl speak it: the calls and fields that the tests
// use. Field numbers are those of its api.proto.
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import { decode, encode, type Message, type Sent, type Value } from '../../daemon/base/protobuf.ts'

const METADATA = { name: [1, 'text'], uid: [2, 'text'], namespace: [3, 'text'], attempt: [4, 'number'] } as const
const PORT = {
  protocol: [1, 'number'],
  containerPort: [2, 'number'],
  hostPort: [3, 'number'],
  hostIp: [4, 'text']
} as const
/** A map of strings is a list of such pairs. */
const PAIR = { key: [1, 'text'], value: [2, 'text'] } as const
/** NamespaceMode: 0 the pod's, 2 the host's. */
const NAMESPACES = { network: [1, 'number'], pid: [2, 'number'], ipc: [3, 'number'] } as const
/** `type` 0 is RuntimeDefault. */
const PROFILE = { type: [1, 'number'] } as const
const SANDBOX = {
  metadata: [1, METADATA],
  hostname: [2, 'text'],
  logDirectory: [3, 'text'],
  portMappings: [5, [PORT]],
  annotations: [7, [PAIR]],
  linux: [
    8,
    { cgroupParent: [1, 'text'], securityContext: [2, { namespaces: [1, NAMESPACES], seccomp: [9, PROFILE] }] }
  ]
} as const
const MOUNT = {
  containerPath: [1, 'text'],
  hostPath: [2, 'text'],
  isReadOnly: [3, 'flag'],
  /** 0 private, 1 host to container. */
  propagation: [5, 'number']
} as const
/** What kubelet makes of a container's part of a manifest. Lists of words are sent by `listed`. */
export const CONTAINER = {
  environment: [6, [PAIR]],
  mounts: [7, [MOUNT]],
  logPath: [11, 'text'],
  linux: [
    15,
    {
      resources: [1, { memoryLimitBytes: [4, 'number'] }],
      securityContext: [
        2,
        {
          namespaces: [3, NAMESPACES],
          isRootReadOnly: [7, 'flag'],
          noNewPrivileges: [11, 'flag'],
          seccomp: [15, PROFILE]
        }
      ]
    }
  ]
} as const
/**
 * Fields of linux.securityContext that are lists of words: capabilities to add and to drop, masked and read-only paths.
 */
const LISTS = { add: [1, 1], drop: [1, 2], masked: [13], readOnly: [14] } as const
const SANDBOX_ID = { podSandboxId: [1, 'text'] } as const
const CONTAINER_ID = { containerId: [1, 'text'] } as const
const CONDITION = { type: [1, 'text'], status: [2, 'flag'], reason: [3, 'text'], message: [4, 'text'] } as const
const STATUS = {
  id: [1, 'text'],
  state: [3, 'number'],
  network: [5, { ip: [1, 'text'], additional: [2, [{ ip: [1, 'text'] }]] }]
} as const

const CALLS = {
  Version: { request: {}, response: { name: [2, 'text'], version: [3, 'text'], api: [4, 'text'] } },
  Status: {
    request: { verbose: [1, 'flag'] },
    response: { status: [1, { conditions: [1, [CONDITION]] }], about: [2, [PAIR]] }
  },
  RunPodSandbox: { request: { config: [1, SANDBOX] }, response: SANDBOX_ID },
  StopPodSandbox: { request: SANDBOX_ID, response: {} },
  RemovePodSandbox: { request: SANDBOX_ID, response: {} },
  PodSandboxStatus: {
    request: { podSandboxId: [1, 'text'], verbose: [2, 'flag'] },
    response: { status: [1, STATUS], about: [2, [PAIR]] }
  },
  ListPodSandbox: { request: {}, response: { items: [1, [{ id: [1, 'text'] }]] } },
  CreateContainer: {
    request: {
      podSandboxId: [1, 'text'],
      config: [2, { metadata: [1, { name: [1, 'text'] }], image: [2, { image: [1, 'text'] }], ...CONTAINER }],
      sandbox: [3, SANDBOX]
    },
    response: CONTAINER_ID
  },
  StartContainer: { request: CONTAINER_ID, response: {} },
  StopContainer: { request: { containerId: [1, 'text'], timeoutSeconds: [2, 'number'] }, response: {} },
  ContainerStatus: {
    request: CONTAINER_ID,
    response: { status: [1, { state: [3, 'number'], exitCode: [7, 'number'], reason: [10, 'text'] }] }
  },
  ExecSync: {
    request: { containerId: [1, 'text'], timeoutSeconds: [3, 'number'] },
    response: { stdout: [1, 'text'], stderr: [2, 'text'], exitCode: [3, 'number'] }
  }
} as const satisfies { readonly [name: string]: { readonly request: Message; readonly response: Message } }

type CallName = keyof typeof CALLS
type Request<N extends CallName> = Sent<(typeof CALLS)[N]['request']>
type Response<N extends CallName> = Value<(typeof CALLS)[N]['response']>

export type Protocol = 'tcp' | 'udp' | 'sctp'
const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp', 'sctp']

export type SandboxRequest = {
  readonly name: string
  readonly portMappings?: readonly {
    readonly containerPort: number
    readonly hostPort: number
    readonly protocol: Protocol
    readonly hostIp?: string
  }[]
  readonly annotations?: Readonly<Record<string, string>>
  /** Network and processes of the host, as hostNetwork and hostPID ask for; with RuntimeDefault's seccomp profile. */
  readonly onHost?: boolean
  readonly logDirectory?: string
}

/** A container as a manifest describes it. */
export type ContainerWish = Omit<Sent<typeof CONTAINER>, 'linux'> & {
  readonly command: readonly string[]
  readonly linux?: Sent<(typeof CONTAINER)['linux'][1]>
  readonly lists?: { readonly [L in keyof typeof LISTS]?: readonly string[] }
}

/** `details` is the runtime's own JSON: containerd tells the CNI result and its configuration there. */
export type SandboxStatus = {
  readonly isReady: boolean
  readonly ip: string
  readonly additionalIps: readonly string[]
  readonly details: { readonly [key: string]: unknown }
}

type About = readonly { readonly key: string; readonly value: string }[]
const said = (about: About, key: string): { readonly [key: string]: unknown } =>
  JSON.parse(about.find((pair) => pair.key === key)?.value ?? '{}')

export const ON_HOST: Sent<typeof NAMESPACES> = { network: 2, pid: 2, ipc: 0 }

/** ContainerConfig's fields 3 (command) and 15.2 (linux.security_context), a word at a time. */
function listed({ command, lists = {} }: ContainerWish): readonly Buffer[] {
  const inside = (numbers: readonly number[], word: string): Buffer => {
    const [number = 0, ...rest] = numbers
    if (rest.length === 0) return encode({ word: [number, 'text'] }, { word })
    const bytes = inside(rest, word)
    return Buffer.concat([
      encode({ length: [number, 'text'] }, { length: '' }).subarray(0, -1),
      varint(bytes.length),
      bytes
    ])
  }
  const names = Object.keys(LISTS) as (keyof typeof LISTS)[]
  return [
    ...command.map((word) => inside([2, 3], word)),
    ...names.flatMap((name) => (lists[name] ?? []).map((word) => inside([2, 15, 2, ...LISTS[name]], word)))
  ]
}

/** A length below 2^14. */
const varint = (length: number): Buffer =>
  length < 0x80 ? Buffer.from([length]) : Buffer.from([(length & 0x7f) | 0x80, length >> 7])

export class Cri {
  readonly #socket: string
  readonly #cgroupParent: string

  /** Control groups of containers are made under `cgroupParent`. */
  constructor(socket: string, cgroupParent: string) {
    this.#socket = socket
    this.#cgroupParent = cgroupParent
  }

  /**
   * Rejects with the runtime's error, gRPC code and text. A connection for each call, since tests restart runtimes.
   * `more` are encoded fields to be merged in.
   */
  async #call<N extends CallName>(
    name: N,
    request: Request<N>,
    { deadlineMs = 60_000, more = [] }: { readonly deadlineMs?: number; readonly more?: readonly Buffer[] } = {}
  ): Promise<Response<N>> {
    const client = new Client(`unix://${this.#socket}`, credentials.createInsecure())
    const { promise, resolve, reject } = Promise.withResolvers<Response<N>>()
    client.makeUnaryRequest(
      `/runtime.v1.RuntimeService/${name}`,
      (value: Request<N>) => Buffer.concat([encode(CALLS[name].request as Message, value), ...more]),
      (bytes) => decode(CALLS[name].response as Message, bytes) as Response<N>,
      request,
      new Metadata(),
      { deadline: Date.now() + deadlineMs },
      (error, answer) => (answer === undefined ? reject(error) : resolve(answer))
    )
    return promise.finally(() => client.close())
  }

  async version(): Promise<string> {
    const { name, version, api } = await this.#call('Version', {}, { deadlineMs: 5_000 })
    return `${name} ${version} ${api}`
  }

  /** RuntimeReady and NetworkReady, and what the runtime knows of its network configurations. */
  async status() {
    const { status, about } = await this.#call('Status', { verbose: true })
    return { conditions: status?.conditions ?? [], network: said(about, 'cniconfig') }
  }

  #sandbox({
    name,
    portMappings = [],
    annotations = {},
    onHost = false,
    logDirectory = ''
  }: SandboxRequest): Sent<typeof SANDBOX> {
    return {
      logDirectory,
      metadata: { name, uid: `uid-${name}`, namespace: 'lab', attempt: 1 },
      // As kubelet: a pod on the host's network has the host's name.
      hostname: onHost ? '' : name,
      portMappings: portMappings.map((port) => ({ ...port, protocol: PROTOCOLS.indexOf(port.protocol) })),
      annotations: Object.entries(annotations).map(([key, value]) => ({ key, value })),
      linux: {
        cgroupParent: this.#cgroupParent,
        ...(onHost && { securityContext: { namespaces: ON_HOST, seccomp: { type: 0 } } })
      }
    }
  }

  /** Makes a pod and tells its id. */
  async runPodSandbox(request: SandboxRequest): Promise<string> {
    const answer = await this.#call('RunPodSandbox', { config: this.#sandbox(request) }, { deadlineMs: 120_000 })
    return answer.podSandboxId
  }

  async stopPodSandbox(podSandboxId: string): Promise<void> {
    await this.#call('StopPodSandbox', { podSandboxId }, { deadlineMs: 120_000 })
  }

  async removePodSandbox(podSandboxId: string): Promise<void> {
    await this.#call('RemovePodSandbox', { podSandboxId })
  }

  async podSandboxStatus(podSandboxId: string): Promise<SandboxStatus> {
    const { status, about } = await this.#call('PodSandboxStatus', { podSandboxId, verbose: true })
    return {
      isReady: status?.state === 0,
      ip: status?.network?.ip ?? '',
      additionalIps: (status?.network?.additional ?? []).map(({ ip }) => ip),
      details: said(about, 'info')
    }
  }

  async podSandboxes(): Promise<readonly string[]> {
    return (await this.#call('ListPodSandbox', {})).items.map(({ id }) => id)
  }

  /** A running container of the pod that was made by `request`. */
  async startContainer(
    podSandboxId: string,
    request: SandboxRequest,
    image: string,
    wish: ContainerWish | readonly string[],
    name = 'main'
  ): Promise<string> {
    const { command, lists, ...fields }: ContainerWish = 'command' in wish ? wish : { command: wish }
    const { containerId } = await this.#call(
      'CreateContainer',
      { podSandboxId, config: { metadata: { name }, image: { image }, ...fields }, sandbox: this.#sandbox(request) },
      // A field that is sent twice is merged with the first (protobuf.dev, "Last One Wins").
      { more: listed({ command, ...(lists && { lists }) }) }
    )
    await this.#call('StartContainer', { containerId })
    return containerId
  }

  async stopContainer(containerId: string, timeoutSeconds: number): Promise<void> {
    await this.#call('StopContainer', { containerId, timeoutSeconds }, { deadlineMs: 120_000 })
  }

  /** `undefined` while it runs, then its exit status. */
  async exitCode(containerId: string): Promise<number | undefined> {
    const { status } = await this.#call('ContainerStatus', { containerId })
    return status?.state === 2 ? status.exitCode : undefined
  }

  exec(containerId: string, command: readonly string[]): Promise<Response<'ExecSync'>> {
    const more = command.map((word) => encode({ word: [2, 'text'] }, { word }))
    return this.#call('ExecSync', { containerId, timeoutSeconds: 30 }, { more })
  }
}
