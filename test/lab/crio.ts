// CRI-O's way of calling plugins (ocicni), as a script: VERSION of every plugin, STATUS, GC at start, CHECK at once
// after each ADD, DEL with the configuration of ADD.

import { BIN } from './cluster.ts'
import { type CniAnswer, type CniVerb, cni, type Json } from './cni.ts'
import type { Host } from './host.ts'

/** What libcni keeps of an attachment: configuration and arguments as they were at ADD. */
type Cached = { readonly list: Json; readonly netns: string; readonly capabilities: Json; readonly result: Json }

export class Crio {
  readonly host: Host
  /** The list in force, which an administrator may replace. */
  list: Json
  readonly #cache = new Map<string, Cached>()

  private constructor(host: Host, list: Json) {
    this.host = host
    this.list = list
  }

  /**
   * Loads a list, which fails when one of its plugins doesn't announce the list's version; then STATUS, then GC with no
   * known pods, as null.
   */
  static async start(host: Host, list: Json): Promise<Crio> {
    const crio = new Crio(host, list)
    for (const plugin of crio.#plugins(list)) {
      const { result } = await crio.#call('VERSION', { cniVersion: list.cniVersion, type: plugin.type })
      const supported = result?.supportedVersions as readonly string[]
      if (!supported?.includes(String(list.cniVersion)))
        throw new Error(`${plugin.type} does not support ${list.cniVersion}, only ${supported?.join(' ')}`)
    }
    await crio.status()
    await crio.gc(null)
    return crio
  }

  async status(): Promise<void> {
    if (this.list.cniVersion === '1.1.0') await this.#call('STATUS', this.list)
  }

  /** libcni sends the list under the key of the newest text and under the one of 1.1.0. */
  async gc(known: readonly { readonly containerID: string; readonly ifname: string }[] | null): Promise<void> {
    if (this.list.cniVersion !== '1.1.0') return
    const keys = { 'cni.dev/valid-attachments': known, 'cni.dev/attachments': known }
    await this.#call('GC', {
      ...this.list,
      plugins: this.#plugins(this.list).map((plugin) => ({ ...plugin, ...keys }))
    })
  }

  /** ADD and, at once, CHECK; a pod whose CHECK fails is torn down. The answer is what is cached. */
  async setUp(containerId: string, netns: string, capabilities: Json = {}): Promise<Json> {
    const { list } = this
    const { result } = await this.#call('ADD', list, { containerId, netns, capabilities })
    if (result === undefined) throw new Error(`ADD of ${containerId} printed nothing`)
    this.#cache.set(containerId, { list, netns, capabilities, result })
    try {
      if (String(list.cniVersion) >= '0.4.0')
        await this.#call('CHECK', list, { containerId, netns, capabilities, prevResult: result })
    } catch (error) {
      await this.tearDown(containerId)
      throw error
    }
    return result
  }

  /**
   * DEL with the cached configuration, falling back to what is in force now. `netns` '' when the namespace went first.
   */
  async tearDown(containerId: string, netns = this.#cache.get(containerId)?.netns ?? ''): Promise<void> {
    const cached = this.#cache.get(containerId)
    const { list = this.list, capabilities = {}, result } = cached ?? {}
    const prevResult = String(list.cniVersion) >= '0.4.0' && result !== undefined ? { prevResult: result } : {}
    await this.#call('DEL', list, { containerId, netns, capabilities, ...prevResult })
    this.#cache.delete(containerId)
  }

  #plugins(list: Json): readonly Json[] {
    return list.plugins as readonly Json[]
  }

  #call(
    verb: CniVerb,
    config: Json,
    more: {
      readonly containerId?: string
      readonly netns?: string
      readonly capabilities?: Json
      readonly prevResult?: Json
    } = {}
  ): Promise<CniAnswer> {
    const pod = `K8S_POD_NAMESPACE=lab;K8S_POD_NAME=${more.containerId};K8S_POD_INFRA_CONTAINER_ID=${more.containerId};K8S_POD_UID=u`
    return cni(this.host, {
      verb,
      config,
      binDir: BIN,
      args: more.containerId ? `IgnoreUnknown=1;${pod}` : '',
      ...more
    })
  }
}
