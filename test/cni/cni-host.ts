// One host with weftd for the numbered cases of the CNI reference: raw calls of executables, ours or others', and what
// they leave in the host.
import assert from 'node:assert/strict'
import { BIN, Cluster, type ClusterOptions } from '../lab/cluster.ts'
import type { CniVerb, Json } from '../lab/cni.ts'
import type { Host } from '../lab/host.ts'
import type { Pod } from '../lab/pod.ts'
import { ruleset } from '../lab/ruleset.ts'
import { settled } from '../lab/run.ts'

export const skip = process.getuid?.() === 0 ? false : 'needs root'

export type Asked = {
  readonly config?: Json | string
  readonly id?: string
  readonly pod?: Pod
  readonly netns?: string
  readonly ifname?: string
  readonly args?: string
  /** Laid over the six variables; an empty text stays. */
  readonly env?: Readonly<Record<string, string>>
  /** A command that runs the executable, such as `unshare -n`. */
  readonly under?: string
  /** Folders of executables, for CNI_PATH; the first with the type is run. */
  readonly path?: readonly string[]
}

export type Answered = {
  readonly exit: number
  readonly stdout: string
  readonly stderr: string
  readonly json: Json & { readonly code?: number; readonly msg?: string; readonly details?: string }
}

let pods = 0

export class CniHost implements AsyncDisposable {
  readonly cluster: Cluster
  readonly host: Host

  private constructor(cluster: Cluster) {
    this.cluster = cluster
    this.host = cluster.node(1)
  }

  /** A node that holds a subnet of 10.244.0.0/16; `args` for its weftd. */
  static async start(args: readonly string[] = [], more: Pick<ClusterOptions, 'deadlineMs'> = {}): Promise<CniHost> {
    return new CniHost(await Cluster.start({ hosts: [1], args, ...more }))
  }

  pod(): Promise<Pod> {
    return this.host.pod(`p${process.pid}x${pods++}`)
  }

  /** Runs the executable `type` once. The container's id is its namespace's name unless another is given. */
  async call(verb: CniVerb | string, type: string, asked: Asked = {}): Promise<Answered> {
    const { config = {}, pod, path = [BIN] } = asked
    const input =
      typeof config === 'string' ? config : JSON.stringify({ cniVersion: '1.1.0', name: 'net1', type, ...config })
    const env = {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: asked.id ?? pod?.name ?? '',
      CNI_NETNS: asked.netns ?? pod?.netns ?? '',
      CNI_IFNAME: asked.ifname ?? 'eth0',
      CNI_ARGS: asked.args ?? '',
      CNI_PATH: path.join(':'),
      ...asked.env
    }
    const script = `for d in "$@"; do [ -x "$d/$0" ] && exec ${asked.under ?? ''} "$d/$0"; done; exit 127`
    const { code, stdout, stderr } = await this.host.exec('sh', ['-c', script, type, ...path], {
      input,
      env,
      check: false
    })
    // Case 24: one JSON object on failure and nothing else.
    if (code !== 0) assert.match(stdout, /^\{.*\}\n?$/s, `${verb} of ${type} failed without an error object: ${stdout}`)
    return { exit: code ?? -1, stdout, stderr, json: stdout === '' ? {} : (JSON.parse(stdout) as Answered['json']) }
  }

  /** The call must succeed. */
  async ok(verb: CniVerb | string, type: string, asked: Asked = {}): Promise<Json> {
    const answered = await this.call(verb, type, asked)
    assert.equal(answered.exit, 0, `${verb} of ${type}: ${answered.stdout}${answered.stderr}`)
    if (verb !== 'ADD' && verb !== 'VERSION') assert.equal(answered.stdout, '')
    return answered.json
  }

  /** The call must fail, with this code if one is given, and with words that match. */
  async fails(verb: CniVerb | string, type: string, asked: Asked, words: RegExp, code?: number): Promise<void> {
    const { exit, json, stdout } = await this.call(verb, type, asked)
    assert.notEqual(exit, 0, `${verb} of ${type} succeeded: ${stdout}`)
    assert.match(`${json.msg ?? ''} ${json.details ?? ''}`, words)
    if (code !== undefined) assert.equal(json.code, code, stdout)
  }

  /** Files of a folder in the host, sorted; none when there is no folder. */
  async files(folder: string): Promise<readonly string[]> {
    const { stdout } = await this.host.sh(`ls -A ${folder} 2>/dev/null || true`)
    return stdout
      .split('\n')
      .filter((name) => name !== '')
      .sort()
  }

  /** The reserved addresses of a network. */
  async reserved(network = 'net1', dataDir = '/var/lib/cni/networks'): Promise<readonly string[]> {
    return (await this.files(`${dataDir}/${network}`)).filter((name) => /^[0-9a-f.:]+$/.test(name))
  }

  /** Names of the host's links but its own. */
  async links(): Promise<readonly string[]> {
    const links = (await this.host.ip('link')) as readonly { readonly ifname: string }[]
    return links.map(({ ifname }) => ifname).filter((name) => !/^(lo|eth0|weft\.\d+)$/.test(name))
  }

  async ruleset(): Promise<string> {
    return ruleset(this.host)
  }

  /**
   * The same once nothing follows from earlier calls any more (weftd adds bridges of pods to the tunnel's guard after
   * the answer): two listings half a second apart are equal. For comparisons of a before with an after.
   */
  settledRuleset(): Promise<string> {
    return settled(() => this.ruleset(), { what: 'rules that no longer change', everyMs: 500 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]()
  }
}

/** The addresses that a result tells. */
export const addressesOf = (result: Json): readonly string[] =>
  ((result.ips ?? []) as readonly { readonly address: string }[]).map(({ address }) => address)
