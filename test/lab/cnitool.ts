// The CNI project's own tool on a host of the lab: the reference of what a runtime's library does with a list.
// scripts/peers builds it.
import { existsSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { BIN } from './cluster.ts'
import type { Json } from './cni.ts'
import { writeList } from './containerd.ts'
import type { Host } from './host.ts'
import { peersDirectory } from './peers.ts'
import type { Finished } from './run.ts'

export type CnitoolVerb = 'add' | 'check' | 'del' | 'gc' | 'status'

/** Debian's package containernetworking-plugins (1.1.1: versions up to 1.0.0). */
export const debianPlugins = '/usr/lib/cni'

let folders = 0

/** A folder for CNI_PATH in which each plugin comes from the folder that is named for it. */
export function pluginFolder(host: Host, plugins: Readonly<Record<string, string>>): string {
  const folder = join(host.owner.directory, `cni-${Object.keys(plugins).join('-')}-${folders++}`)
  mkdirSync(folder)
  for (const [type, from] of Object.entries(plugins)) {
    if (!existsSync(join(from, type))) throw new Error(`there is no plugin ${type} in ${from}`)
    symlinkSync(join(from, type), join(folder, type))
  }
  return folder
}

/** cnitool with one list. Attachments are cached by libcni in the host's own /var/lib/cni, as with any runtime. */
export class Cnitool {
  readonly host: Host
  readonly list: Json
  readonly #path: string

  private constructor(host: Host, list: Json, path: string) {
    this.host = host
    this.list = list
    this.#path = path
  }

  /** `path` is CNI_PATH; dist/cni when absent. */
  static async of(host: Host, list: Json, path = BIN): Promise<Cnitool> {
    await writeList(host, list, `${list.name}.conflist`)
    return new Cnitool(host, list, path)
  }

  run(
    verb: CnitoolVerb,
    netns: string,
    more: { readonly ifname?: string; readonly capabilities?: Json; readonly check?: boolean } = {}
  ): Promise<Finished> {
    const { ifname = 'eth0', capabilities = {}, check = true } = more
    return this.host.exec(join(peersDirectory(), 'bin/cnitool'), [verb, String(this.list.name), netns], {
      check,
      timeoutMs: 60_000,
      env: {
        NETCONFPATH: '/etc/cni/net.d',
        CNI_PATH: this.#path,
        CNI_IFNAME: ifname,
        CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=cnitool',
        CAP_ARGS: JSON.stringify(capabilities)
      }
    })
  }

  /** ADD, and its result. */
  async add(netns: string, more: { readonly ifname?: string; readonly capabilities?: Json } = {}): Promise<Json> {
    return JSON.parse((await this.run('add', netns, more)).stdout)
  }
}

/** Addresses of a result, without their length. */
export const addressesOf = (result: Json): readonly string[] =>
  (result.ips as readonly { readonly address: string }[]).map(({ address }) => String(address.split('/')[0]))
