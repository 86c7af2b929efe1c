// A pod's network namespace for one verb: a netlink socket opened inside it, and short synchronous visits for its
// sysctl files.
import { closeSync } from 'node:fs'
import type { Log } from '../base/log.ts'
import { errnoNumber } from '../os/libc.ts'
import type { Change } from '../state/difference.ts'
import type { Outcome, Sandbox } from '../state/kernel.ts'
import { type Link, type State, type Sysctl, stateOf } from '../state/object.ts'
import { applyChanges } from './apply.ts'
import { LinkDeleter } from './delete-links.ts'
import { dumpSandbox } from './dump.ts'
import { inside, openNamespace } from './namespace.ts'
import { createLink } from './netlink/encode.ts'
import { refused } from './netlink/error.ts'
import type { Lanes } from './netlink/lane.ts'
import { RequestSocket } from './netlink/request-socket.ts'
import { isNetworkSysctl, readSysctl, writeSysctl } from './sysctl.ts'

export type SandboxDeps = {
  readonly log: Log
  readonly lanes: Lanes
  /** A socket in the host's namespace. */
  readonly host: RequestSocket
}

/** Opens the namespace at `path`. Errors: WeftError SANDBOX_GONE, SANDBOX_INVALID; CallFailed. */
export function openSandbox(path: string, deps: SandboxDeps, mayBeOwn = false): Sandbox {
  const namespace = openNamespace(path, mayBeOwn)
  try {
    const socket = inside(namespace, () => new RequestSocket(deps.lanes.ordinary))
    return new OpenSandbox(namespace, socket, deps)
  } catch (error) {
    closeSync(namespace)
    throw error
  }
}

class OpenSandbox implements Sandbox {
  readonly #namespace: number
  readonly #socket: RequestSocket
  readonly #deps: SandboxDeps
  #deletion: { readonly socket: RequestSocket; readonly deleter: LinkDeleter } | undefined
  #closed = false

  constructor(namespace: number, socket: RequestSocket, deps: SandboxDeps) {
    this.#namespace = namespace
    this.#socket = socket
    this.#deps = deps
  }

  async read(sysctls: readonly string[] = []): Promise<State> {
    const objects = await dumpSandbox(this.#socket)
    const files =
      sysctls.length === 0
        ? []
        : inside(this.#namespace, () => sysctls.filter(isNetworkSysctl).map((path) => readSysctl(path)))
    return stateOf([...objects, ...files.filter((object) => object !== undefined)])
  }

  async bring(link: Link): Promise<Error | undefined> {
    const parent = link.form?.type === 'macvlan' ? link.form.madeOn : undefined
    const index = parent === undefined ? undefined : this.#deps.host.indexOf(parent)
    if (index === undefined) return refused('add', link, errnoNumber('ENODEV'), `there is no device ${parent}`)
    const message = createLink(link, { index: () => index, netns: () => this.#namespace }, this.#namespace)
    const [failure] = await this.#deps.host.send([message])
    return failure && refused('add', link, failure.errno, failure.sentence)
  }

  apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    return applyChanges(changes, {
      socket: this.#socket,
      // Few verbs delete a link from inside; deleting the host's end of a pair deletes this one too.
      remove: (link) => this.#deleter().remove(link),
      openNamespace,
      writeSysctls: (objects) => this.#writeSysctls(objects),
      firewall: async (firewallChanges) =>
        firewallChanges.map((change) => ({
          change,
          error: refused(change.do, change.object, errnoNumber('EOPNOTSUPP'), 'weftd sets no firewall inside pods')
        }))
    })
  }

  #deleter(): LinkDeleter {
    if (this.#deletion === undefined) {
      const socket = inside(this.#namespace, () => new RequestSocket(this.#deps.lanes.removals[0]))
      this.#deletion = { socket, deleter: new LinkDeleter([socket], this.#deps.log) }
    }
    return this.#deletion.deleter
  }

  #writeSysctls(objects: readonly Sysctl[]): readonly (Error | undefined)[] {
    return inside(this.#namespace, () =>
      objects.map((object) =>
        isNetworkSysctl(object.path)
          ? writeSysctl(object)
          : refused('write', object, errnoNumber('EPERM'), 'outside net/ a sysctl belongs to the whole host')
      )
    )
  }

  /** Closes the descriptors now; a socket that waits for an answer closes after it. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    closeSync(this.#namespace)
    this.#socket[Symbol.dispose]()
    const deletion = this.#deletion
    if (deletion !== undefined) void deletion.deleter.idle().finally(() => deletion.socket[Symbol.dispose]())
  }
}
