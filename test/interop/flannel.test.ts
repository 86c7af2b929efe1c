// A node is taken over from flanneld under ping, handed back, and rebooted; and flanneld's flags are those of
// docs/flannel.md.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Cluster, linesOf, PREFIX, reachEachOther } from '../lab/cluster.ts'
import { flannelPod } from '../lab/flannel-pod.ts'
import { Flanneld } from '../lab/flanneld.ts'
import { missingPeer, peersDirectory } from '../lab/peers.ts'
import { run, until } from '../lab/run.ts'
import { flannelRows } from '../unit/docs/flannel-rows.ts'

const skip = process.getuid?.() === 0 ? missingPeer('bin/flanneld') : 'needs root'

test('docs/flannel.md has a row for each flag that flanneld prints', { skip }, async () => {
  const { stderr } = await run(join(peersDirectory(), 'bin/flanneld'), ['--help'], { check: false })
  const printed = [...stderr.matchAll(/^ {2}-(\S+)/gm)].map(([, name = '']) => `--${name}`)
  const text = readFileSync(new URL('../../docs/flannel.md', import.meta.url), 'utf8')
  const rows = flannelRows(text).filter(({ heading }) => heading === 'Flags')
  assert.deepEqual(rows.map(({ what }) => what.replaceAll('`', '')).sort(), printed.sort())
})

test('a node is taken over from flanneld and handed back: subnet, VTEP MAC, device and pods stay, and no ping is lost', {
  skip,
  timeout: 300_000
}, async () => {
  const network = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }
  await using cluster = await Cluster.start({ hosts: [1, 1], start: false, network })
  const [first, second] = [cluster.node(1), cluster.node(2)]
  const flanneld = await Flanneld.start(first, { etcd: cluster.etcd })
  await cluster.join(second)
  const old = await flannelPod(first, 'old')
  const far = await cluster.pod(second)
  await reachEachOther([old, far])
  const leases = await cluster.etcd.list(`${PREFIX}/subnets/`)
  const identity = async () =>
    (await linesOf(first, 'ip', '-o', 'link', 'show', 'flannel.1')).map((line) =>
      /^\d+: flannel\.1|link\/ether \S+/g[Symbol.match](line)
    )
  const before = await identity()

  const takeOver = await far.pod.pingDuring(old.address, async () => {
    await flanneld.stop()
    await cluster.join(first, { args: ['--ip-masq'] })
    const young = await cluster.pod(first, { name: 'cbr0' })
    assert.notEqual(young.address, old.address)
    await reachEachOther([old, young, far])
  })
  assert.deepEqual(takeOver.lost, [], 'packets lost while weftd took over')
  assert.deepEqual(await cluster.etcd.list(`${PREFIX}/subnets/`), leases)
  assert.deepEqual(await identity(), before)

  const giveBack = await far.pod.pingDuring(old.address, async () => {
    await cluster.daemon(1).stop()
    flanneld.launch()
    await flanneld.ready()
    await reachEachOther([old, await flannelPod(first, 'new'), far])
  })
  assert.deepEqual(giveBack.lost, [], 'packets lost while flanneld took over again')
  assert.deepEqual(await identity(), before)
  await until(async () => (await far.pod.ping(old.address)).received === 1, {
    what: 'the old pod to answer in the end'
  })

  // A reboot leaves neither flanneld's device nor subnet.env nor a remembered lease; its address comes from DHCP, and
  // another one would come first now. The device is made anew, and gets another MAC, as with flanneld. Until then the
  // tunnel leads nowhere.
  cluster.announce('UNDERLAY_LOST')
  await flanneld.stop()
  await first.sh(`ip link del flannel.1; rm -rf /run/flannel /run/weft
    ip addr change ${first.address}/24 dev eth0 valid_lft 9999 preferred_lft 9999
    ip addr add 192.168.10.201/24 dev eth0`)
  cluster.daemon(1).launch()
  await cluster.daemon(1).ready()
  const subnets = (of: typeof leases) =>
    [...of].map(([key, value]) => [key, (JSON.parse(value) as { readonly PublicIP: string }).PublicIP])
  assert.deepEqual(subnets(await cluster.etcd.list(`${PREFIX}/subnets/`)), subnets(leases))
  await reachEachOther([await cluster.pod(first, { name: 'cbr0' }), far])
})
