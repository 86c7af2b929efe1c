// A host of the lab: network, mounts and name of its own, an eth0 on the underlay whose cable can be pulled, and pods.
import type { Holder } from './holder.ts'
import { Place } from './lab-scene.ts'
import { hostAddresses, segmentAddresses } from './names.ts'
import { Pod } from './pod.ts'
import type { NamespaceOwner, Underlay } from './underlay.ts'

export interface HostOptions {
  readonly name?: string
  /** Which bridge eth0 is on; hosts of different segments reach each other through the router. 0 when absent. */
  readonly segment?: number
  /** IPv4 address of eth0, without length; the next of the segment when absent. */
  readonly address?: string
  /** Of eth0; the lab's when absent. */
  readonly mtu?: number
  /** net.ipv4.ip_forward at the start; false when absent, as on a fresh machine. */
  readonly forward?: boolean
}

interface HostLab extends NamespaceOwner {
  beforeRemoval(callback: () => void): void
  readonly underlay: Underlay
}

/** Directories of programs that keep state outside /run: each host has its own, empty. */
const privateDirectories = ['/run', '/var/lib/cni', '/var/lib/weft', '/etc/cni', '/etc/weft']

function script(name: string, forward: boolean): string {
  const mounts = privateDirectories.map((path) => `mkdir -p ${path}; mount -t tmpfs -o mode=755 tmpfs ${path}`)
  return `
${mounts.join('\n')}
mkdir -p /run/netns /run/lock /etc/cni/net.d
hostname ${name}
ip link set lo up
echo ${forward ? 1 : 0} > /proc/sys/net/ipv4/ip_forward`
}

export class Host extends Place implements AsyncDisposable {
  readonly segment: number
  /** IPv4 address of eth0. */
  readonly address: string
  /** IPv6 address of eth0, when the lab has IPv6. */
  readonly address6: string | undefined
  readonly #lab: HostLab
  readonly #holder: Holder
  readonly #mtu: number

  private constructor(lab: HostLab, name: string, holder: Holder, options: HostOptions & { readonly index: number }) {
    super(lab, name, ['-t', String(holder.pid), '-n', '-m', '-u', `--wdns=${process.cwd()}`])
    this.#lab = lab
    this.#holder = holder
    this.segment = options.segment ?? 0
    const addresses = hostAddresses(this.segment, options.index)
    this.address = options.address ?? addresses.v4
    this.address6 = lab.underlay.options.ipv6 ? addresses.v6 : undefined
    this.#mtu = options.mtu ?? lab.underlay.options.mtu
  }

  static async make(lab: HostLab, name: string, options: HostOptions & { readonly index: number }): Promise<Host> {
    const holder = await lab.hold(name, script(name, options.forward ?? false))
    const host = new Host(lab, name, holder, options)
    await host.plugIn()
    return host
  }

  /** The process that keeps the host's namespaces. */
  get pid(): number {
    return this.#holder.pid
  }

  /** The same process as programs on this host see it. */
  get pidInside(): number {
    return this.#holder.pidInside
  }

  /** Calls before the files of the lab, logs among them, are removed. */
  beforeRemoval(callback: () => void): void {
    this.#lab.beforeRemoval(callback)
  }

  /**
   * A path of this host as this process sees it: `host.path('/run/flannel/subnet.env')`. Sockets can be connected to
   * under it, too.
   */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`
  }

  /** Makes eth0 with its addresses and the default route. */
  async plugIn(): Promise<void> {
    await this.#lab.underlay.plug(this.name, this.segment, this.#holder.pidInside, this.#mtu)
    // Nobody else has these addresses, and duplicate address detection would keep IPv6 quiet for a second.
    await this.sh('echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad')
    const { v4, v6 } = segmentAddresses(this.segment)
    const lines = [
      `addr add ${this.address}/${v4.length} dev eth0`,
      'link set eth0 up',
      `route add default via ${v4.gateway} dev eth0`
    ]
    if (this.address6) {
      lines.push(
        `addr add ${this.address6}/${v6.length} dev eth0 nodad`,
        `route add default via ${v6.gateway} dev eth0`
      )
    }
    await this.exec('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n` })
  }

  /** Deletes eth0: what a removed card or a restarted driver looks like. */
  async unplug(): Promise<void> {
    await this.exec('ip', ['link', 'del', 'eth0'])
  }

  /**
   * Deletes eth0 and makes it again, with another interface index and MAC, the same addresses and the default route.
   */
  async replug(): Promise<void> {
    await this.unplug()
    await this.plugIn()
  }

  /** Pulls the cable: eth0 loses its carrier. With `silently` the carrier stays and frames go nowhere. */
  async cut(options: { readonly silently?: boolean } = {}): Promise<void> {
    await this.#lab.underlay.switch.exec('ip', ['link', 'set', this.name, options.silently ? 'nomaster' : 'down'])
  }

  /** Puts the cable back, however it was cut. */
  async restore(): Promise<void> {
    await this.#lab.underlay.switch.exec('ip', ['link', 'set', this.name, 'master', `br${this.segment}`, 'up'])
  }

  /** Gives eth0 another MTU, at both ends of the cable. */
  async setMtu(mtu: number): Promise<void> {
    await this.#lab.underlay.switch.exec('ip', ['link', 'set', this.name, 'mtu', String(mtu)])
    await this.exec('ip', ['link', 'set', 'eth0', 'mtu', String(mtu)])
  }

  /** A namespace for a pod, as a runtime makes it before ADD: empty, lo down, at /run/netns/NAME inside this host. */
  pod(name: string): Promise<Pod> {
    return Pod.make(this, name)
  }

  /**
   * The host is gone as by a pulled plug: its keeper ends, its cable goes. Programs in it should have been stopped
   * before.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab.underlay.switch.exec('ip', ['link', 'del', this.name], { check: false })
    this.#holder.end()
  }
}
