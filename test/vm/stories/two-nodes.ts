// Two hosts whose underlay a story has rebuilt, weftd on both with one lease file, and a pod on each.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BIN, reachEachOther } from '../../lab/cluster.ts'
import { cni, type Json } from '../../lab/cni.ts'
import type { Host } from '../../lab/host.ts'
import { Lab } from '../../lab/hosts.ts'
import type { Pod } from '../../lab/pod.ts'
import { Weftd } from '../../lab/weftd.ts'

/**
 * Milliseconds that weftd has to become ready: the guest is emulated, a start takes half a minute on a busy machine.
 */
const READY_MS = 240_000

export interface NodePod {
  readonly host: Host
  readonly pod: Pod
  readonly address: string
}

export class TwoNodes implements AsyncDisposable {
  readonly lab: Lab
  readonly daemons: readonly Weftd[]
  readonly pods: readonly NodePod[]

  private constructor(lab: Lab, daemons: readonly Weftd[], pods: readonly NodePod[]) {
    this.lab = lab
    this.daemons = daemons
    this.pods = pods
  }

  /** `underlay` makes of eth0, which each host has, the link that weftd is then told to use. Without `backend` none. */
  static async start(options: {
    readonly iface: string
    readonly backend?: Json
    readonly underlay?: (host: Host, n: number, lab: Lab) => Promise<void>
  }): Promise<TwoNodes> {
    const lab = await Lab.start({ hosts: [2] })
    try {
      for (const [index, host] of lab.hosts.entries()) await options.underlay?.(host, index + 1, lab)
      const config = join(lab.directory, 'net-conf.json')
      writeFileSync(config, JSON.stringify({ Network: '10.244.0.0/16', Backend: options.backend }))
      const args = [
        '--store=embedded',
        `--embedded-path=${join(lab.directory, 'leases.db')}`,
        `--net-config-path=${config}`,
        `--iface=${options.iface}`
      ]
      // One after the other: with one lease file for all, each waits for the first transaction of the others, which is
      // slow here.
      const daemons: Weftd[] = []
      for (const host of lab.hosts) daemons.push(await Weftd.start(host, { args, deadlineMs: READY_MS }))
      const pods = await Promise.all(lab.hosts.map((host) => podOn(host)))
      return new TwoNodes(lab, daemons, pods)
    } catch (error) {
      await lab[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Each pod reaches the other one. */
  reach(): Promise<void> {
    return reachEachOther(this.pods.map((each) => ({ ...each, id: each.pod.name, result: {} })))
  }

  /** Packets of the pods' full size pass, which a wrong MTU of the tunnel would stop. */
  async carriesFullSize(): Promise<void> {
    const [first, second] = this.pods
    assert.ok(first && second)
    const [link] = (await first.pod.ip('link', 'show', 'eth0')) as readonly { readonly mtu: number }[]
    assert.ok(link)
    // 20 octets of IPv4 and 8 of ICMP.
    const answer = await first.pod.ping(second.address, { size: link.mtu - 28, mtuProbe: true })
    assert.equal(answer.received, 1, answer.text)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.lab[Symbol.asyncDispose]()
  }
}

async function podOn(host: Host): Promise<NodePod> {
  const pod = await host.pod('p')
  const { result } = await cni(host, {
    verb: 'ADD',
    config: { cniVersion: '1.1.0', name: 'lab', type: 'weft' },
    binDir: BIN,
    containerId: 'p',
    netns: pod.netns
  })
  const [first] = (result?.ips ?? []) as readonly { readonly address: string }[]
  assert.ok(first)
  return { host, pod, address: String(first.address.split('/')[0]) }
}
