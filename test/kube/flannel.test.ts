// flanneld and weftd in one cluster by annotations alone: each reads what the other writes, and a node changes hands
// with its subnet and its VTEP MAC.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { reachEachOther } from '../lab/cluster.ts'
import { flannelPod } from '../lab/flannel-pod.ts'
import type { Host } from '../lab/host.ts'
import { Lab } from '../lab/hosts.ts'
import { missingPeer, peersDirectory } from '../lab/peers.ts'
import { until } from '../lab/run.ts'
import { Weftd } from '../lab/weftd.ts'
import { ControlPlane } from './control-plane.ts'
import { noControlPlane } from './parts.ts'
import { annotationsOn, nodeObject, weftdRole } from './store-scene.ts'

const slow = { deadlineMs: 90_000 }

test('flanneld and weftd reach each other by annotations alone, and a node changes hands with its subnet and VTEP MAC', {
  skip: noControlPlane() || missingPeer('bin/flanneld'),
  timeout: 400_000
}, async () => {
  // A router between them: what reaches the other node is encapsulated.
  await using lab = await Lab.start({ hosts: [1, 1] })
  await using plane = await ControlPlane.start(lab)
  const { api } = plane
  await plane.apply(...weftdRole('weftd'))
  const [one, two] = lab.hosts
  assert.ok(one && two)
  const flags = async (host: Host) => {
    writeFileSync(host.path('/run/net-conf.json'), '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}')
    const kubeconfig = await plane.kubeconfig('weftd', 'weftd')
    const store = ['--kube-subnet-mgr', `--kubeconfig-file=${kubeconfig}`, '--net-config-path=/run/net-conf.json']
    return { args: [...store, '--iface=eth0', '--ip-masq'], env: { NODE_NAME: host.name } }
  }
  for (const { name } of [one, two]) {
    await api.call('POST', '/api/v1/nodes', nodeObject(name))
    await until(async () => (await api.node(name)).spec.podCIDR, { what: `a podCIDR for ${name}`, ...slow })
  }

  const { args, env } = await flags(one)
  const flanneld = one.spawn(`${peersDirectory()}/bin/flanneld`, args, { name: 'flanneld', env })
  const wrote = () => readFileSync(one.path('/run/flannel/subnet.env'), 'utf8')
  await until(wrote, { what: 'subnet.env of flanneld', ...slow })
  await using far = await Weftd.start(two, { ...(await flags(two)), deadlineMs: slow.deadlineMs })
  const [old, other] = [await flannelPod(one, 'old'), await flannelPod(two, 'other')]
  await reachEachOther([old, other])

  const before = { annotations: annotationsOn(await api.node(one.name)), subnetEnv: wrote() }
  assert.match(String(before.annotations['backend-data']), /^\{"VNI":1,"VtepMAC":"[\da-f:]{17}"\}$/)
  await flanneld.stop()
  await using near = await Weftd.start(one, { ...(await flags(one)), deadlineMs: slow.deadlineMs })
  const { 'backend-data': data, ...annotations } = annotationsOn(await api.node(one.name))
  const { Port, ...theirs } = JSON.parse(String(data))
  assert.equal(Port, 8472)
  assert.deepEqual({ ...annotations, 'backend-data': JSON.stringify(theirs) }, before.annotations)
  assert.match(wrote(), new RegExp(String(/FLANNEL_SUBNET=\S+/.exec(before.subnetEnv)?.[0])))
  await reachEachOther([old, other])
  const logged = [...near.log, ...far.log].filter(({ msg }) => /malformed|changed and are written again/.test(msg))
  assert.deepEqual(logged, [])
})
