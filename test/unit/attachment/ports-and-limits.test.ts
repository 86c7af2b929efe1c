// Host ports and limits of a pod, as objects on the host in both modes, and what the result says of them.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hostName, ifbMac } from '../../../daemon/attachment/identity.ts'
import { podObjects, type Wiring } from '../../../daemon/attachment/objects.ts'
import { resultOf } from '../../../daemon/attachment/result.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { order } from '../../../daemon/state/order.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { testNode } from '../test-node.ts'
import { attachmentOf, poolAddresses } from './attachment.ts'

const v4 = poolAddresses('10.244.1.2/24')
const node = testNode({ ipv6: false })
const wiring = (mode: Wiring['mode']): Wiring => ({ mode, mtu: 1450, clusterNetworks: [] })
const texts = (objects: readonly KernelObject[]) => objects.map(textOf)
const limit = { rateBitsPerSecond: 8_000_000, burstBits: 800_000 }
const of = (over: Parameters<typeof attachmentOf>[0], mode: Wiring['mode'] = 'bridge') =>
  podObjects(attachmentOf(over), v4, node, wiring(mode))
const link = hostName(attachmentOf())
const ifb = link.replace('veth', 'weft')

describe('host ports', () => {
  const hostPorts = [{ protocol: 'tcp', hostPort: 8080, containerPort: 80 }] as const
  const element = `element inet weft host_ports_4 { tcp . 8080 comment "${link} pod default/web-1" : 10.244.1.2 . 80 }`

  it('are elements beside the pod’s link, which is in hairpin mode; the bridge is guarded for all pods', () => {
    const { shared, host } = of({ hostPorts })
    assert.match(texts(host)[0] ?? '', /hairpin on/)
    assert.deepEqual(texts(host).slice(1), [element])
    assert.deepEqual(texts(shared).slice(-2), [
      'element inet weft host_port_devices { "cni0" }',
      'sysctl net/ipv4/conf/cni0/route_localnet=1'
    ])
  })

  it('in routed mode guard the pod’s own link, which takes guard and setting along', () => {
    const { shared, host } = of({ hostPorts }, 'routed')
    assert.deepEqual(texts(host).slice(-3), [
      `element inet weft host_port_devices { "${link}" }`,
      `sysctl net/ipv4/conf/${link}/route_localnet=1`,
      element
    ])
    assert.equal(
      texts(shared).some((text) => text.startsWith('element')),
      false
    )
  })

  it('that lead nowhere need no shared objects, as those of another family', () => {
    const { shared, host } = of({ hostPorts: [{ ...hostPorts[0], hostIp: { family: 6, value: 1n } }] })
    assert.deepEqual([shared, host.length], [[], 1])
    assert.deepEqual(of({}).shared, [])
  })
})

describe('limits', () => {
  it('are token buckets towards the pod and behind an ifb from it', () => {
    assert.deepEqual(texts(of({ bandwidth: { ingress: limit, egress: limit } }).host).slice(1), [
      `qdisc dev ${link} root tbf rate 8000000bit burst 100000b limit 125000b`,
      `link ${ifb} type ifb mtu 1450 address ${ifbMac(ifb)} up`,
      `qdisc dev ${link} ingress redirect dev ${ifb}`,
      `qdisc dev ${ifb} root tbf rate 8000000bit burst 100000b limit 125000b`
    ])
    assert.equal(of({ bandwidth: { ingress: limit } }).host.length, 2)
    assert.equal(of({ bandwidth: { egress: limit } }).host.length, 4)
  })

  it('let at least one packet pass, and stay within the kernel’s 32 bits', () => {
    const spec = (rateBitsPerSecond: number, burstBits: number) =>
      texts(of({ bandwidth: { ingress: { rateBitsPerSecond, burstBits } } }).host)[1]?.replace(/.* tbf /, '')
    assert.equal(spec(8, 8), 'rate 8bit burst 1464b limit 1464b')
    assert.equal(spec(4e12, 34_359_738_359), 'rate 4000000000000bit burst 4294967294b limit 4294967295b')
  })

  it('from the pod show in the result as its last interface', () => {
    const attachment = attachmentOf({ bandwidth: { egress: limit } })
    const { interfaces, addresses } = resultOf(attachment, v4, node, wiring('bridge'))
    assert.deepEqual(interfaces.at(-1), { name: ifb, mac: ifbMac(ifb), mtu: 1450 })
    assert.equal(interfaces[addresses[0]?.interface ?? -1]?.name, 'eth0')
  })

  it('go with their device, without a request of their own', () => {
    const { host } = of({ bandwidth: { ingress: limit, egress: limit } })
    const removals = order(host.map((object) => ({ do: 'remove', object })))
    assert.deepEqual(
      removals.map(({ object }) => object.kind),
      ['link', 'link']
    )
    const [, bucket] = host
    assert.ok(bucket)
    assert.equal(order([{ do: 'remove', object: bucket }]).length, 1)
  })
})
