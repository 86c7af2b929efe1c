// A host of the lab as flannel leaves it: flanneld started by a script, its conflist, the reference plugins in a
// directory of the host's own; and weftctl migrate there, with the commands that start and stop both daemons.
import assert from 'node:assert/strict'
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Resident } from './cluster.ts'
import { type CniVerb, cni, type Json } from './cni.ts'
import type { Etcd } from './etcd.ts'
import type { Host } from './host.ts'
import { peersDirectory } from './peers.ts'
import { until } from './run.ts'
import { weftctl, weftctlCommand } from './weftctl.ts'
import { weftdCommand } from './weftd.ts'

const plugins = fileURLToPath(new URL('../../dist/cni', import.meta.url))
/** The host's own. */
export const CNI_BIN = '/run/cni-bin'
export const CONFLIST = '/etc/cni/net.d/10-flannel.conflist'
/** With the white space and the order of flannel's published manifest: its bytes must come back. */
export const LIST = `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": { "hairpinMode": true, "isDefaultGateway": true }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
`

export class FlannelHost {
  readonly host: Host
  #pods = 0

  private constructor(host: Host) {
    this.host = host
  }

  static async start(host: Host, etcd: Etcd, more: readonly string[] = []): Promise<FlannelHost> {
    const self = new FlannelHost(host)
    cpSync(`${peersDirectory()}/cni`, host.path(CNI_BIN), { recursive: true })
    writeFileSync(host.path(CONFLIST), LIST)
    const flags = [`--etcd-endpoints=${etcd.endpointList}`, '--iface=eth0', '--ip-masq', ...more].join(' ')
    self.#daemon('flanneld', `${peersDirectory()}/bin/flanneld ${flags}`)
    self.#daemon('weftd', `${weftdCommand().join(' ')} --healthz-port=8471 $WEFT_OPTIONS`)
    await host.exec('/run/start-flanneld')
    await until(() => existsSync(host.path('/run/flannel/subnet.env')), { what: 'subnet.env of flanneld' })
    return self
  }

  /** Scripts that start and stop it, as an administrator without systemd has them. Hosts of a lab share process ids. */
  #daemon(name: string, line: string): void {
    this.#script(`run-${name}`, `echo $$ >/run/${name}.pid; exec ${line} >>/run/${name}.log 2>&1`)
    this.#script(`start-${name}`, `setsid -f /run/run-${name}`)
    this.#script(`stop-${name}`, `kill $(cat /run/${name}.pid)`)
  }

  #script(name: string, line: string): void {
    const path = this.host.path(`/run/${name}`)
    mkdirSync(this.host.path('/run'), { recursive: true })
    writeFileSync(path, `#!/bin/sh\n${line}\n`)
    chmodSync(path, 0o755)
  }

  read(path: string): string {
    return readFileSync(this.host.path(path), 'utf8')
  }

  get flanneldRuns(): Promise<boolean> {
    // One that has ended and was not waited for has no namespaces.
    const isThere = [`/proc/${this.read('/run/flanneld.pid').trim()}/ns/net`]
    return this.host.exec('readlink', isThere, { check: false }).then(({ code }) => code === 0)
  }

  /** `weftctl migrate` as an administrator of this host types it. */
  migrate(action: 'plan' | 'apply' | 'rollback', more: readonly string[] = []) {
    return weftctl(this.host, [...this.#words(action), ...more], { timeoutMs: 180_000 })
  }

  #words(action: string): readonly string[] {
    const commands = ['stop-flanneld', 'start-flanneld', 'start-weftd', 'stop-weftd'].map(
      (name) => `--${name}=/run/${name}`
    )
    return ['migrate', action, ...commands, `--cni-bin-dir=${CNI_BIN}`, `--cni-source-dir=${plugins}`]
  }

  /** Begins it, and kills it with SIGKILL as soon as it says that a step begins; false if it ended before. */
  async killedAt(action: 'apply' | 'rollback', step: string): Promise<boolean> {
    const [program, ...words] = [...weftctlCommand(), ...this.#words(action)]
    const process = this.host.spawn(program, words, { name: `migrate-${action}-${step}` })
    const begins = () => process.text().includes(`${step} …`)
    await until(() => begins() || process.ended !== undefined, { what: `${action} to begin ${step}`, everyMs: 2 })
    const isKilled = process.ended === undefined
    process.kill('SIGKILL')
    await process.exited()
    return isKilled
  }

  /** How often it was killed in time: on a busy machine some runs end before the signal. */
  async killedAtEach(action: 'apply' | 'rollback', steps: readonly string[]): Promise<number> {
    let killed = 0
    for (const step of steps) if (await this.killedAt(action, step)) killed++
    return killed
  }

  async migrated(action: 'apply' | 'rollback'): Promise<string> {
    const { code, stdout, stderr } = await this.migrate(action)
    assert.equal(code, 0, `${stdout}${stderr}\n${await this.logs()}`)
    return stdout
  }

  async logs(): Promise<string> {
    return (await this.host.sh('tail -n 40 /run/flanneld.log /run/weftd.log 2>&1 || true')).stdout
  }

  /** The list that the runtime uses now: the first in the directory. */
  async list(): Promise<Json> {
    const { stdout } = await this.host.sh('ls /etc/cni/net.d/*.conflist | head -n 1')
    return JSON.parse(this.read(stdout.trim())) as Json
  }

  /** A pod as the runtime makes it now; `ports` are host ports. */
  async pod(ports: readonly object[] = []): Promise<Resident & { del(): Promise<void> }> {
    const id = `${this.host.name}m${process.pid}x${this.#pods++}`
    const pod = await this.host.pod(id)
    const config = await this.list()
    const capabilities = ports.length > 0 ? { portMappings: ports } : {}
    const call = async (verb: CniVerb, more: object = {}) =>
      cni(this.host, { verb, config, binDir: CNI_BIN, containerId: id, netns: pod.netns, capabilities, ...more })
    const { result } = await call('ADD')
    const [first] = (result?.ips ?? []) as readonly { readonly address: string }[]
    const resident = { host: this.host, pod, id, address: String(first?.address.split('/')[0]), result: result ?? {} }
    // As containerd: with the list of its ADD.
    return { ...resident, del: async () => void (await call('DEL')) }
  }
}
