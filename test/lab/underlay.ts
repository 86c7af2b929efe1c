// The wires of the lab: one bridge for each segment in a namespace called switch, and a router with a leg in each
// segment.
import type { Holder } from './holder.ts'
import { Place, type PlaceOwner } from './lab-scene.ts'
import { segmentAddresses } from './names.ts'

export interface UnderlayOptions {
  readonly mtu: number
  readonly ipv6: boolean
}

/** A lab that can hold namespaces. */
export interface NamespaceOwner extends PlaceOwner {
  hold(name: string, script: string): Promise<Holder>
}

// A plain switch: frames of hosts must not run through the machine's own bridge firewall hooks.
const switchScript = `
ip link set lo up
for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ -e "$file" ] && echo 0 > "$file"; done
hostname switch`

const routerScript = `
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
hostname router`

export class Underlay {
  readonly switch: Place
  readonly router: Place
  readonly options: UnderlayOptions
  readonly #router: Holder
  readonly #segments = new Set<number>()

  private constructor(lab: PlaceOwner, holder: Holder, router: Holder, options: UnderlayOptions) {
    this.switch = new Place(lab, 'switch', ['-t', String(holder.pid), '-n', '-m', '-u'])
    this.router = new Place(lab, 'router', ['-t', String(router.pid), '-n', '-m', '-u'])
    this.#router = router
    this.options = options
  }

  static async make(lab: NamespaceOwner, options: UnderlayOptions): Promise<Underlay> {
    const [holder, router] = await Promise.all([lab.hold('switch', switchScript), lab.hold('router', routerScript)])
    return new Underlay(lab, holder, router, options)
  }

  /** Makes the bridge of a segment and the router's leg in it, once. */
  async segment(segment: number): Promise<void> {
    if (this.#segments.has(segment)) return
    this.#segments.add(segment)
    const { v4, v6 } = segmentAddresses(segment)
    const { mtu, ipv6 } = this.options
    await this.switch.exec('ip', ['-batch', '-'], {
      input: `
link add br${segment} mtu ${mtu} type bridge forward_delay 0 mcast_snooping 0
link set br${segment} up
link add router${segment} mtu ${mtu} type veth peer name seg${segment} mtu ${mtu} netns ${this.#router.pidInside}
link set router${segment} master br${segment} up
`
    })
    const legs = `addr add ${v4.gateway}/${v4.length} dev seg${segment}\nlink set seg${segment} up\n`
    const more = ipv6 ? `addr add ${v6.gateway}/${v6.length} dev seg${segment} nodad\n` : ''
    await this.router.exec('ip', ['-batch', '-'], { input: legs + more })
  }

  /** A cable: `port` on the segment's bridge, eth0 in the namespace of `pid`, as processes of the lab see it. */
  async plug(port: string, segment: number, pid: number, mtu: number): Promise<void> {
    await this.segment(segment)
    await this.switch.exec('ip', ['-batch', '-'], {
      input: `
link add ${port} mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${pid}
link set ${port} master br${segment} up
`
    })
  }
}
