// Attachments for the pod tests: what the weft plugin makes of an ordinary configuration.
import assert from 'node:assert/strict'
import { formatIp, parsePrefix } from '../../../ipam/address.ts'
import { type PoolAddress, rangeSets } from '../../../ipam/pool.ts'
import type { VethAttachment } from '../../../plugins/attachment.ts'

export const attachmentOf = (
  over: Omit<Partial<VethAttachment>, 'interface'> & { readonly interface?: Partial<VethAttachment['interface']> } = {}
): VethAttachment => ({
  network: 'net1',
  containerId: 'c0ffee',
  ifname: 'eth0',
  sandbox: '/run/netns/p1',
  plugin: 'weft',
  ipam: { dataDir: '/var/lib/cni/networks', requested: [], ranges: [], routes: [] },
  pod: { namespace: 'default', name: 'web-1' },
  because: 'pod default/web-1',
  ...over,
  interface: {
    kind: 'veth',
    bridge: 'cni0',
    isHairpin: false,
    isPromiscuous: false,
    isDefaultGateway: true,
    ...over.interface
  }
})

/** Addresses of the pool by their texts, as `10.244.1.2/24`. */
export const poolAddresses = (...texts: readonly string[]): readonly PoolAddress[] =>
  texts.map((text) => {
    const prefix = parsePrefix(text) ?? assert.fail(text)
    const subnet =
      parsePrefix(`${formatIp({ family: prefix.ip.family, value: prefix.ip.value & ~0xffn })}/${prefix.length}`) ??
      assert.fail()
    const range = rangeSets([[{ subnet }]])[0]?.[0] ?? assert.fail()
    return { prefix, gateway: range.gateway }
  })
