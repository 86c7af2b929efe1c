// A pod by flannel's own plugins and the conflist of its published manifest, on a host whose subnet.env anybody may
// have written.
import type { Resident } from './cluster.ts'
import { cni } from './cni.ts'
import type { Host } from './host.ts'
import { peersDirectory } from './peers.ts'

const conflist = {
  name: 'cbr0',
  cniVersion: '0.3.1',
  plugins: [{ type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } }, { type: 'portmap' }]
}

export async function flannelPod(host: Host, id: string): Promise<Resident> {
  const pod = await host.pod(id)
  const call = { config: conflist, binDir: `${peersDirectory()}/cni`, containerId: id, netns: pod.netns }
  const { result } = await cni(host, { verb: 'ADD', ...call })
  const [first] = (result?.ips ?? []) as readonly { readonly address: string }[]
  return { host, pod, id, address: String(first?.address.split('/')[0]), result: result ?? {} }
}
