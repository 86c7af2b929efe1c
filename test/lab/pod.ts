// A pod's network namespace, kept by a bind mount inside its host, as a container runtime keeps it.
import { Place } from './lab-scene.ts'

/** What a pod needs of its host. */
export interface PodHost extends Place {
  readonly pid: number
  path(inside: string): string
}

export class Pod extends Place implements AsyncDisposable {
  readonly host: PodHost
  /** What CNI_NETNS says, valid inside the host. */
  readonly netns: string

  private constructor(host: PodHost, name: string) {
    const netns = `/run/netns/${name}`
    super(host.owner, name, ['-t', String(host.pid), '-m', '-u', `--net=${host.path(netns)}`])
    this.host = host
    this.netns = netns
  }

  static async make(host: PodHost, name: string): Promise<Pod> {
    // unshare itself binds the new namespace to the file.
    await host.sh(`[ ! -e /run/netns/${name} ] && : > /run/netns/${name}\nunshare --net=/run/netns/${name} true`)
    return new Pod(host, name)
  }

  /** Takes the namespace away, whether or not DEL was called. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.host.sh(`umount ${this.netns} && rm ${this.netns}`, { check: false })
  }
}
