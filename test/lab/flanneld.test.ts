// Real flanneld in the lab: three hosts, one behind the router, with the reference plugins; Weft must interoperate with
// what they make.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cni } from './cni.ts'
import { environmentFile } from './dockerd.ts'
import { Etcd } from './etcd.ts'
import { Flanneld } from './flanneld.ts'
import { Lab } from './hosts.ts'
import { missingPeer, peersDirectory } from './peers.ts'
import { until } from './run.ts'

const conflist = {
  name: 'cbr0',
  cniVersion: '0.3.1',
  plugins: [{ type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } }, { type: 'portmap' }]
}

test('pods of three hosts reach each other over flannel, and DEL removes a pod', {
  skip: process.getuid?.() === 0 ? missingPeer('bin/flanneld') : 'needs root'
}, async () => {
  await using lab = await Lab.start({ hosts: [2, 1] })
  const hosts = [...lab.hosts]
  const etcd = await Etcd.start(lab)
  const config = { Network: '10.2.0.0/16', Backend: { Type: 'vxlan' } }
  await etcd.put('/coreos.com/network/config', JSON.stringify(config))
  const daemons = await Promise.all(hosts.map((host) => Flanneld.start(host, { etcd })))
  assert.equal((await etcd.list('/coreos.com/network/subnets/')).size, 3)
  const binDir = `${peersDirectory()}/cni`
  const attached = []
  for (const [index, host] of hosts.entries()) {
    const pod = await host.pod(`pod-${host.name}`)
    const call = { config: conflist, binDir, containerId: pod.name, netns: pod.netns }
    const { result } = await cni(host, { verb: 'ADD', ...call })
    const [first] = (result?.ips ?? []) as readonly { readonly address: string; readonly gateway: string }[]
    const subnet = environmentFile(String(daemons[index]?.subnetEnv())).get('FLANNEL_SUBNET')
    assert.equal(`${first?.gateway}/24`, subnet)
    attached.push({ host, pod, call, address: String(first?.address.split('/')[0]) })
  }
  for (const from of attached) {
    for (const to of attached.filter((other) => other !== from)) {
      const answers = async () => (await from.pod.ping(to.address)).received === 1
      await until(answers, { what: `an answer of ${to.pod.name} to ${from.pod.name}` })
    }
  }
  const [first] = attached
  assert.ok(first)
  await cni(first.host, { verb: 'DEL', ...first.call })
  assert.deepEqual((await first.pod.ip('link')).length, 1)
})
