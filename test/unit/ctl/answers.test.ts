// nodes, pods and why: weftd's values over the socket, printed as text.
import assert from 'node:assert/strict'
import test from 'node:test'
import { hostName, ownerOf } from '../../../daemon/attachment/identity.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { ask } from '../../../daemon/ctl/ask.ts'
import { type KernelObject, type Key, keyOf } from '../../../daemon/state/object.ts'
import { until } from '../until.ts'
import { ip, lease, prefix, SmallDaemon } from './small-daemon.ts'

const route = (n: number) => `route 254 10.244.${n}.0/24 metric 0` as Key

test('nodes tells the path to each node, whether it is programmed, and what is skipped', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const broken = lease(4, { backendData: { 4: { VNI: 1 } } })
  const leases = [lease(1), lease(2, { node: 'two' }), lease(3, { publicIp: { 4: ip('198.51.100.3') } }), broken]
  await daemon.send({ kind: 'list', leases })
  const { exit, out } = await daemon.weftctl('nodes')
  const rows = out.split('\n').map((line) => line.split(/ {2,}/).slice(0, 6))
  assert.deepEqual(rows.slice(0, 5), [
    ['NODE', 'SUBNET', 'PUBLIC-IP', 'BACKEND', 'PATH', 'PROGRAMMED'],
    ['one', '10.244.1.0/24', '192.0.2.1', 'vxlan', 'this-node', 'yes'],
    ['two', '10.244.2.0/24', '192.0.2.2', 'vxlan', 'direct:eth0', 'yes'],
    ['198.51.100.3', '10.244.3.0/24', '198.51.100.3', 'vxlan', 'vxlan:weft.1', 'yes'],
    ['192.0.2.4', '10.244.4.0/24', '192.0.2.4', 'vxlan', 'skipped', 'NO']
  ])
  assert.match(out, /\n10\.244\.4\.0-24 is skipped: .*VtepMAC null/)
  assert.match(out, /2026-01-01T00:00:\d\dZ +-$/m)
  assert.equal(exit, 1)
})

test('a lease whose route is missing is not in the kernel; with all there the exit status is 0', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const before = await daemon.weftctl('nodes')
  assert.deepEqual([before.out, before.exit], ['the store has not listed its leases yet; weftctl status says why\n', 1])
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2)] })
  assert.equal((await daemon.weftctl('nodes')).exit, 0)
  daemon.kernel.refuses.set(route(2), 'Network is unreachable')
  daemon.kernel.change(undefined, route(2))
  await new Promise((resolve) => setImmediate(resolve))
  const { exit, out } = await daemon.weftctl('why', 'node', '192.0.2.2')
  assert.equal(exit, 1)
  assert.match(out, /^lease 10\.244\.2\.0-24: incomplete in the kernel$/m)
  assert.match(out, /^ {2}\+ route 10\.244\.2\.0\/24 via 192\.0\.2\.2 dev eth0 proto 87 {3}\(missing\)$/m)
  assert.match(out, /because of it, 0 of 1:/)
})

test('diff decides nothing before the store has listed its leases, and names what weftd waits for', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const stale: KernelObject = {
    ...{ kind: 'route', table: 254, destination: prefix('10.244.9.0/24'), metric: 0, type: 'unicast' },
    ...{ device: 'eth0', gateway: ip('192.0.2.9'), protocol: 87 }
  }
  daemon.kernel.change(stale, route(9))
  const diff = async () => {
    const { exit, out } = await daemon.weftctl('diff')
    return [exit, out.trimEnd()]
  }
  const waiting = (what: string) => [4, `not decided: weftd waits for ${what}; nothing will be removed until then`]
  daemon.health.raise('CONFIG_MISSING', 'no key')
  assert.deepEqual(await diff(), waiting('the network configuration (CONFIG_MISSING)'))
  daemon.health.clear('CONFIG_MISSING')
  assert.deepEqual(await diff(), waiting("this node's subnet"))
  await daemon.hold()
  daemon.health.raise('STORE_UNREACHABLE', 'refused')
  assert.deepEqual(await diff(), waiting("the store's list of leases (STORE_UNREACHABLE)"))
  daemon.health.clear('STORE_UNREACHABLE')
  await daemon.send({ kind: 'list', leases: [lease(1)] })
  assert.deepEqual(await diff(), waiting("confirmation of the store's list of leases (LIST_DOUBTED)"))
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2), lease(3)] })
  assert.deepEqual(await diff(), [0, 'the kernel is in the desired state'])
})

test('a lease whose route the kernel does not use is not called programmed', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2)] })
  daemon.shadowed.set('10.244.2.0-24', 'packets to 10.244.2.0/24 take another route')
  const { exit, out } = await daemon.weftctl('nodes')
  assert.match(out, /^192\.0\.2\.2 .* direct:eth0 +NO /m)
  assert.match(out, /^10\.244\.2\.0-24: packets to 10\.244\.2\.0\/24 take another route$/m)
  assert.equal(exit, 1)
  const why = await daemon.weftctl('why', 'node', '192.0.2.2')
  assert.match(why.out, /: programmed, but the kernel does not use it\n {2}shadowed: packets to/)
  assert.equal(why.exit, 1)
})

test('nodes says when packets were answered last, and of lost ones which, where and the cure; peers has the worst first', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const [two, three, four] = [lease(2, { node: 'two' }), lease(3, { node: 'three' }), lease(4, { node: 'four' })]
  await daemon.send({ kind: 'list', leases: [lease(1), two, three, four] })
  const since = Date.parse('2026-01-01T00:00:05.1Z')
  const pods = { way: 'pods', family: 4, since, text: 'it answers' } as const
  const lost = { text: 'UDP port 8472 from a to b is lost', cure: 'let it pass' }
  daemon.probed.views = [
    { key: '10.244.3.0-24', lease: three, ways: [{ ...pods, verdict: 'out-lost', ...lost }] },
    { key: '10.244.4.0-24', lease: four, ways: [{ ...pods, verdict: 'not-asked', text: 'no address of it' }] },
    {
      key: '10.244.2.0-24',
      lease: two,
      ways: [
        { ...pods, verdict: 'whole', roundTripUs: 1_234, answeredAt: Date.parse('2026-01-01T00:00:07.9Z') },
        { ...pods, way: 'nodes', verdict: 'lost', ...lost }
      ]
    }
  ]
  const { exit, out } = await daemon.weftctl('nodes')
  assert.match(out, /^two .* yes +\S+ +2026-01-01T00:00:07Z$/m)
  assert.match(out, /^three .* yes +\S+ +out-lost$/m)
  assert.match(out, /^four .* yes +\S+ +not-asked$/m)
  assert.match(out, /\n\n10\.244\.3\.0-24: UDP port 8472 from a to b is lost\. Cure: let it pass\n$/)
  assert.equal(exit, 1)
  const peers = await daemon.weftctl('peers')
  assert.deepEqual(
    peers.out
      .split('\n')
      .map((line) => line.split(/ {2,}/))
      .slice(0, 5),
    [
      ['NODE', 'PROBE', 'FAMILY', 'VERDICT', 'ROUND-TRIP', 'SINCE', 'ANSWERED'],
      ['three', 'pods', 'ipv4', 'out-lost', '-', '2026-01-01T00:00:05Z', '-'],
      ['four', 'pods', 'ipv4', 'not-asked', '-', '2026-01-01T00:00:05Z', '-'],
      ['two', 'pods', 'ipv4', 'whole', '1.23ms', '2026-01-01T00:00:05Z', '2026-01-01T00:00:07Z'],
      ['two', 'nodes', 'ipv4', 'lost', '-', '2026-01-01T00:00:05Z', '-']
    ]
  )
  assert.match(peers.out, /^three \(pods, ipv4\): UDP port 8472 from a to b is lost\. Cure: let it pass$/m)
  assert.match(peers.out, /^four \(pods, ipv4\): no address of it\n(?:.*\n)+\nOnly one was asked\. .* "kubectl weft/m)
  assert.equal(peers.exit, 1)
  // Between node addresses alone: no packet of a pod is lost.
  Object.assign(daemon, { reports: [] }).probed.views = daemon.probed.views.slice(2)
  const again = await daemon.weftctl('peers')
  assert.ok(again.exit === 0 && !again.out.includes('alone'))
  assert.equal((await daemon.weftctl('nodes')).exit, 0)
})

for (const name of ['two', '192.0.2.2', '10.244.2.0/24', '10.244.2.0-24', '10.244.2.77']) {
  test(`why node finds it by ${name}`, async (t) => {
    const daemon = await SmallDaemon.start(t)
    await daemon.hold()
    await daemon.send({ kind: 'list', leases: [lease(1), lease(2, { node: 'two' }), lease(3)] })
    const { exit, out } = await daemon.weftctl('why', 'node', name)
    assert.match(out, /^two, lease 10\.244\.2\.0-24: programmed\n {2}public IP {3}192\.0\.2\.2\n/)
    assert.equal(out.match(/^\S/gm)?.length, 1, out)
    assert.equal(exit, 0)
  })
}

test('why node of a name that nobody has says which are near, how else to ask, and what holds on this node', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  daemon.health.raise('STORE_UNREACHABLE', 'etcd is silent')
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2, { node: 'worker-2' })] })
  const { exit, out } = await daemon.weftctl('why', 'node', 'worker2')
  assert.match(out, /^worker2: no lease matches this node\nsimilar names: worker-2\ncure: /)
  assert.match(out, /^ {2}the lease store does not respond.*: etcd is silent\. Cure: /m)
  assert.equal(exit, 1)
})

test('a record that cannot be read is a row of nodes, and why node explains it by its key', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const error = new WeftError('LEASE_MALFORMED', 'lease 10.244.9.0-24: PublicIP is missing', 'delete the key')
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2)] }, { kind: 'malformed', key: '10.244.9.0-24', error })
  assert.match((await daemon.weftctl('nodes')).out, /^10\.244\.9\.0-24 +- +- +- +skipped +NO +- +-$/m)
  const { out } = await daemon.weftctl('why', 'node', '10.244.9.0-24')
  assert.match(out, /not used\n {2}skipped: lease 10\.244\.9\.0-24: PublicIP is missing/)
})

const who = { network: 'cbr0', containerId: 'c0ffee0000', ifname: 'eth0' }

/** What an ADD leaves: the kernel of these tests has no namespaces, so that the verb itself can't. */
async function attach(daemon: SmallDaemon): Promise<void> {
  const because = 'pod shop/web-1, eth0 in network cbr0'
  const link = hostName(who)
  daemon.attachments.set({
    ...{ ...who, link, addresses: [ip('10.244.1.5')], because, pod: { namespace: 'shop', name: 'web-1' } },
    hostPorts: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIp: ip('127.0.0.1') }],
    bandwidth: { ingress: { rateBitsPerSecond: 10_000_000, burstBits: 80_000 } }
  })
  await daemon.reconciler.want(ownerOf(who), [
    { kind: 'link', name: link, form: { type: 'veth' }, up: true, because },
    {
      kind: 'route',
      table: 254,
      destination: prefix('10.244.1.5/32'),
      metric: 0,
      type: 'unicast',
      device: link,
      protocol: 87,
      because
    },
    // There is no such bridge: nothing is missing.
    { kind: 'proxy', device: 'cni0', ip: ip('fd00:0:0:1::5'), protocol: 87, because }
  ])
}

test('pods lists what each attachment has, by columns and as JSON', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  assert.equal((await daemon.weftctl('pods')).out, 'no pods on this node\n')
  await attach(daemon)
  const { exit, out } = await daemon.weftctl('pods')
  assert.deepEqual(out.split('\n')[1]?.split(/ +/), [
    ...[
      'shop/web-1',
      'c0ffee0000',
      'eth0',
      'cbr0',
      '10.244.1.5',
      'tcp/127.0.0.1:8080->80',
      'in:10M',
      hostName(who),
      'alive'
    ]
  ])
  assert.equal(exit, 0)
  const [pod] = JSON.parse((await daemon.weftctl('pods', '--json')).out).pods
  assert.deepEqual(
    [pod.hostPorts, pod.bandwidth, pod.netns],
    [[{ protocol: 'tcp', hostPort: 8080, containerPort: 80, hostIp: '127.0.0.1' }], { ingress: 10_000_000 }, 'alive']
  )
})

test('an address that is reserved for no attachment of ours is listed with the container that holds it', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const conf = { ipam: { type: 'host-local', dataDir: daemon.dataDir, subnet: '10.9.0.0/24' } }
  assert.equal((await daemon.cni('ADD', { plugin: 'host-local', conf })).exit, 0)
  const { out, exit } = await daemon.weftctl('pods')
  assert.match(out, /^shop\/web-1 +c0ffee0000 +eth0 +cbr0 +10\.9\.0\.2 +- +- +- +unknown$/m)
  assert.equal(exit, 0)
})

test('why pod after an ADD that failed and the DEL that followed still tells cause, evidence and cure', async (t) => {
  const daemon = await SmallDaemon.start(t)
  daemon.health.raise('NO_LEASE', 'etcd has no room')
  const { msg } = await daemon.cni('ADD')
  await daemon.cni('DEL', { conf: { ipam: { dataDir: daemon.dataDir } } })
  const { exit, out } = await daemon.weftctl('why', 'pod', 'shop/web-1')
  assert.match(out, /^shop\/web-1: could not be set up\n\nADD of eth0 by weft failed at 2026-.* \(CNI error 11\):\n/)
  assert.ok(msg && out.includes(`  ${msg}\n`), out)
  assert.match(
    out,
    /calls, latest first:\n.*DEL eth0 by weft, container c0ffee0000, .* ms: ok\n.*ADD .*: FAILED, CNI error 11\n/
  )
  assert.match(out, /no pod can be set up on this node now:\n {2}this node has no subnet: etcd has no room\. Cure: /)
  assert.equal(exit, 1)
})

test('of a chain why pod says which part failed, and what became of the others', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const conf = { ipam: { type: 'host-local', dataDir: daemon.dataDir, subnet: '10.9.0.0/24' } }
  assert.equal((await daemon.cni('ADD', { plugin: 'host-local', conf })).exit, 0)
  assert.equal((await daemon.cni('ADD', { plugin: 'portmap', conf: { backend: 'ipfw' } })).exit, 1)
  const verdict = async () => (await daemon.weftctl('why', 'pod', 'web-1')).out.split('\n')[0]
  const failed = 'web-1: could not be set up: portmap failed for eth0; what host-local set up '
  assert.equal(await verdict(), `${failed}remains until the runtime removes it (DEL)`)
  await daemon.cni('DEL', { plugin: 'portmap', conf: {} })
  assert.equal((await daemon.cni('DEL', { plugin: 'host-local', conf })).exit, 0)
  assert.equal(await verdict(), `${failed}was removed by the runtime`)
})

test('a later ADD that succeeds makes good what failed before', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const conf = { ipam: { type: 'host-local', dataDir: daemon.dataDir, subnet: '10.9.0.0/24' } }
  const call = (over: object) => daemon.cni('ADD', { plugin: 'host-local', conf: { ...conf, ...over } })
  assert.equal((await call({ ipam: {} })).exit, 1)
  assert.match((await daemon.weftctl('why', 'pod', 'web-1')).out, /^web-1: could not be set up/)
  assert.equal((await call({})).exit, 0)
  assert.match((await daemon.weftctl('why', 'pod', 'web-1')).out, /^web-1: is set up; it has no objects on the host/)
})

test('a further ADD that is refused does not hide that the pod stands, until a DEL takes it away', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const conf = { ipam: { type: 'host-local', dataDir: daemon.dataDir, subnet: '10.9.0.0/24' } }
  const call = (verb: string, over: object = {}) =>
    daemon.cni(verb, { plugin: 'host-local', conf: { ...conf, ...over } })
  await call('ADD')
  for (let n = 0; n < 2; n++) assert.equal((await call('ADD', { ipam: {} })).exit, 1)
  const { out, exit } = await daemon.weftctl('why', 'pod', 'web-1')
  assert.match(out, /^web-1: is set up; it has no objects on the host\n\nADD of eth0 by host-local failed at /)
  assert.equal(exit, 1)
  assert.equal((await call('DEL')).exit, 0)
  assert.equal((await call('ADD', { ipam: {} })).exit, 1)
  assert.match((await daemon.weftctl('why', 'pod', 'web-1')).out, /^web-1: could not be set up\n/)
})

test("calls that fail leave the heading to a pod of an earlier weftd's that stands, and are told below it", async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await attach(daemon)
  assert.equal((await daemon.cni('ADD', { conf: { mtu: 'large' } })).exit, 1)
  assert.equal((await daemon.cni('CHECK')).exit, 1)
  const { out, exit } = await daemon.weftctl('why', 'pod', 'web-1')
  assert.match(out, /^web-1: is set up\n\nCHECK of eth0 by weft failed at .*\nADD of eth0 by weft failed at /s)
  assert.equal(exit, 1)
})

for (const name of ['shop/web-1', 'web-1', 'c0ffee', '10.244.1.5']) {
  test(`why pod finds a pod that is set up by ${name}, with what exists because of it`, async (t) => {
    const daemon = await SmallDaemon.start(t)
    await daemon.hold()
    await attach(daemon)
    const { exit, out } = await daemon.weftctl('why', 'pod', name)
    assert.ok(out.startsWith(`${name}: is set up\n`), out)
    assert.match(out, /^eth0 in network cbr0, container c0ffee0000, namespace alive$/m)
    assert.match(out, /^ {4}route 10\.244\.1\.5\/32 dev veth[0-9a-f]{8} proto 87$/m)
    assert.equal(exit, 0)
  })
}

test('why pod finds a container that no pod stands for by its whole id, however short, and no other that begins so', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  for (const containerId of ['try', 'try-again']) {
    const place = { ...who, containerId }
    const because = `eth0 in network cbr0, container ${containerId}`
    const link = hostName(place)
    daemon.attachments.set({ ...place, link, addresses: [ip('10.244.1.6')], because, hostPorts: [], bandwidth: {} })
    await daemon.reconciler.want(ownerOf(place), [
      { kind: 'link', name: link, form: { type: 'veth' }, up: true, because }
    ])
  }
  const { exit, out } = await daemon.weftctl('why', 'pod', 'try')
  assert.match(out, /^try: is set up\n\neth0 in network cbr0, container try, namespace alive\n/)
  assert.match(out, /^ {4}link veth[0-9a-f]{8} type veth up$/m)
  assert.doesNotMatch(out, /try-again/)
  assert.equal(exit, 0)
})

test('why pod tells of a namespace that went without a DEL', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const conf = { ipam: { type: 'host-local', dataDir: daemon.dataDir, subnet: '10.9.0.0/24' } }
  await daemon.cni('ADD', { plugin: 'host-local', conf })
  daemon.attachments.vanished.set(ownerOf(who), { ...who, because: 'pod shop/web-1', since: 0 })
  const { exit, out } = await daemon.weftctl('why', 'pod', 'shop/web-1')
  assert.match(
    out,
    /^shop\/web-1: its network namespace is gone, and no DEL was received for it\n\neth0 in network cbr0, .* namespace gone\n/
  )
  assert.equal(exit, 1)
  assert.match((await daemon.weftctl('pods')).out, /10\.9\.0\.2 .* gone$/m)
  daemon.attachments.release(who)
  const later = await daemon.weftctl('why', 'pod', 'shop/web-1')
  assert.deepEqual([later.out, later.exit], [out, 1], 'also once its address is free again')
})

test('why pod shows what of a pod is missing in the kernel', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await attach(daemon)
  const [gone] = daemon.reconciler.wantedBy(ownerOf(who)).filter(({ kind }) => kind === 'route')
  const key = keyOf(gone ?? assert.fail())
  daemon.kernel.refuses.set(key, 'no')
  daemon.kernel.change(undefined, key)
  await new Promise((resolve) => setImmediate(resolve))
  const { exit, out } = await daemon.weftctl('why', 'pod', 'shop/web-1')
  assert.match(out, /^shop\/web-1: is set up, but not all of it is in the kernel$/m)
  assert.match(out, /^ {2}\+ route 10\.244\.1\.5\/32 .*\(missing\)$/m)
  assert.equal(exit, 1)
})

test('why pod of a pod that weftd never heard of says so, what is near, and where to look', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await attach(daemon)
  const { exit, out } = await daemon.weftctl('why', 'pod', 'shop/web-2')
  assert.match(out, /^shop\/web-2: weftd has received no call for this pod since 2026-01-01T00:00:00Z\n/)
  assert.match(out, /^similar names on this node: shop\/web-1\ncure: /m)
  assert.equal(exit, 1)
})

test('a weftctl that asks something this weftd does not know is told what it knows', async (t) => {
  const daemon = await SmallDaemon.start(t)
  const signal = AbortSignal.timeout(5_000)
  await assert.rejects(ask(daemon.socket, 'why', ['cat', 'x'], signal), { code: 'UNKNOWN_QUESTION' })
  await assert.rejects(ask(daemon.socket, 'doctor', [], signal), /weftd does not know "doctor"/)
})

test('changes lists what others did to the kernel, with the program, and why one has no name', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const none = await daemon.weftctl('changes')
  assert.deepEqual([none.out, none.exit], ['no other program has changed anything since weftd started\n', 0])
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2)] })
  daemon.kernel.change(undefined, route(2), { self: false, pid: 611, name: 'netd' })
  await until(() => daemon.changes.list().length > 0, 'the repair is reported')
  const { exit, out } = await daemon.weftctl('changes')
  assert.match(
    out,
    /^TIME +BY +TOOK +WHAT-WEFTD-DID\n2026-01-01T00:00:00Z +netd \(611\) +[\d.]+ms +put back route 10\.244\.2\.0\/24 /
  )
  assert.equal(exit, 1)
  const json = JSON.parse((await daemon.weftctl('changes', '--json')).out)
  assert.deepEqual([json.changes[0].culprit, json.changes[0].at], ['netd (611)', '2026-01-01T00:00:00.000Z'])
})
