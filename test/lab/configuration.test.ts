// Wrong configuration of every kind: the error is shown where users look, nothing crashes, and a correction needs no
// restart.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster, PREFIX, reachEachOther } from './cluster.ts'
import { until } from './run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

const wrong: readonly (readonly [string, string, RegExp])[] = [
  ['no JSON', '{"Network":', /JSON/],
  ['no network', '{}', /Network/],
  ['a network that is none', '{"Network":"10.244.0.0/99"}', /Network.*10\.244\.0\.0\/99/],
  ['a number for a network', '{"network":7}', /network.*7/],
  ['subnets longer than the network allows', '{"Network":"10.244.0.0/16","SubnetLen":31}', /SubnetLen.*31/],
  [
    'a first subnet outside the network',
    '{"Network":"10.244.0.0/16","SubnetMin":"10.99.0.0"}',
    /SubnetMin.*10\.99\.0\.0/
  ],
  [
    'a first subnet off the boundary',
    '{"Network":"10.244.0.0/16","SubnetMin":"10.244.1.7"}',
    /SubnetMin.*10\.244\.1\.7/
  ],
  ['an unknown backend', '{"Network":"10.244.0.0/16","Backend":{"Type":"quantum"}}', /quantum.*vxlan/],
  ['a VNI out of range', '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","vni":99999999}}', /vni.*99999999/],
  ['a port that is no number', '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","Port":"8472"}}', /Port.*8472/]
]

test('every wrong configuration is named with path and value in readyz and in the CNI error; a correction is applied at once', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  await cluster.etcd.put(`${PREFIX}/config`, wrong[0]?.[1] ?? '')
  const daemon = await cluster.join(cluster.node(1), { wait: false })
  for (const [what, text, expected] of wrong) {
    await cluster.etcd.put(`${PREFIX}/config`, text)
    const body = await until(
      async () => {
        const answer = await daemon.readyz()
        return answer.status === 503 && expected.test(answer.body) && answer.body
      },
      { what: `${what} to be told in /readyz` }
    )
    assert.match(body, /CONFIG_INVALID/)
  }
  const pod = await cluster.node(1).pod('p')
  const refused = await cluster.call(cluster.node(1), 'ADD', 'p', pod.netns, {}, { check: false })
  assert.equal(refused.error?.code, 11)
  assert.match(`${refused.error?.msg} ${refused.error?.details}`, /Port.*8472/)
  await cluster.etcd.put(`${PREFIX}/config`, '{"network":"10.244.0.0/16","backend":{"type":"vxlan"}}')
  await daemon.ready()
  await reachEachOther([await cluster.pod(cluster.node(1)), await cluster.pod(cluster.node(1))])
})

test('no configuration at all: the condition says which key, and that the v2 API does not count', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  await cluster.etcd.ctl(['del', `${PREFIX}/config`])
  const daemon = await cluster.join(cluster.node(1), { wait: false })
  const body = await until(
    async () => {
      const answer = await daemon.readyz()
      return answer.body.includes('CONFIG_MISSING') && answer.body
    },
    { what: 'the condition' }
  )
  assert.match(body, /\/coreos\.com\/network\/config/)
  assert.match(body, /v2/)
  assert.match(body, /etcdctl put \/coreos\.com\/network\/config '/)
  assert.doesNotMatch(body, /<prefix>|ConfigMap|net-config-path/)
  await cluster.etcd.put(`${PREFIX}/config`, '{"Network":"10.244.0.0/16"  , "Backend":{"Type":"host-gw"}}')
  await daemon.ready()
})

test('interfaces: options that match nothing list every candidate, and work once one matches', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const daemon = await cluster.join(cluster.node(1), { wait: false, args: ['--iface=nope0', '-iface', 'late0'] })
  const body = await until(
    async () => {
      const answer = await daemon.readyz()
      return answer.body.includes('NO_INTERFACE') && answer.body
    },
    { what: 'the condition' }
  )
  assert.match(body, /nope0.*no such interface.*late0.*no such interface/)
  await cluster
    .node(1)
    .sh('ip link add late0 type bridge && ip addr add 192.168.77.1/24 dev late0 && ip link set late0 up')
  await daemon.ready()
  assert.equal(
    JSON.parse([...(await cluster.etcd.list(`${PREFIX}/subnets/`)).values()][0] ?? '{}').PublicIP,
    '192.168.77.1'
  )
})

test('the interface is chosen by expression, by what it reaches, and the public address is the configured one', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const node = cluster.node(1)
  await node.sh(`ip link add lan1 type bridge
    ip addr add 192.168.55.1/24 dev lan1
    ip link property add dev lan1 altname enp0s31f6-by-udev
    ip addr add 192.168.56.1/24 dev lan1
    ip link set lan1 up
    ip link add lan2 type bridge
    ip addr add 192.168.57.1/32 dev lan2
    ip addr add 192.168.58.1/24 dev lan2 preferred_lft 0
    ip addr add 192.168.59.1/24 dev lan2 valid_lft 99999 preferred_lft 9999
    ip addr add 192.168.60.1/24 dev lan2
    ip link set lan2 up
    ip addr add 10.9.9.1/32 dev lo`)
  for (const [args, device, publicIp] of [
    [['--iface-regex=(?i)^ETH[[:digit:]]$'], 'eth0', node.address],
    [['--iface=enp0s31f6-by-udev'], 'lan1', '192.168.55.1'],
    [['-iface-regex', '^192[.]168[.]55[.]'], 'lan1', '192.168.55.1'],
    [['-iface-regex', '^192[.]168[.]56[.]'], 'lan1', '192.168.56.1'],
    [['--iface-can-reach=192.168.55.77'], 'lan1', '192.168.55.1'],
    [['--iface=lan2'], 'lan2', '192.168.60.1'],
    [['--iface=10.9.9.1'], 'lo', '10.9.9.1'],
    [['--public-ip=203.0.113.9'], 'eth0', '203.0.113.9']
  ] as const) {
    const daemon = await cluster.join(node, { args })
    const chosen = daemon.log.find(({ msg }) => msg === 'interface chosen')
    assert.equal(chosen?.device, device, args.join(' '))
    const leases = [...(await cluster.etcd.list(`${PREFIX}/subnets/`)).values()].map(
      (text) => JSON.parse(text).PublicIP
    )
    assert.ok(leases.includes(publicIp), `${args.join(' ')}: ${leases.join(', ')}`)
    await daemon.stop()
  }
})

test('GBP and Learning are set on the device in the kernel', { skip, timeout: 300_000 }, async () => {
  await using cluster = await Cluster.start({
    hosts: [2],
    network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', GBP: true, Learning: true, DirectRouting: false } }
  })
  const { stdout } = await cluster.node(1).exec('ip', ['-d', 'link', 'show', 'weft.1'])
  assert.match(stdout, /\bgbp\b/)
  assert.doesNotMatch(stdout, /nolearning/)
  await cluster.podOnEach()
})

test('a network that overlaps the host’s own, and a bridge of an earlier subnet, are reported with both sides', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  await cluster.node(1).sh(`ip link add lan0 type bridge
    ip addr add 10.244.64.1/20 dev lan0
    ip link add cni0 type bridge
    ip addr add 10.244.250.1/24 dev cni0`)
  const daemon = await cluster.join(cluster.node(1), { wait: false })
  const said = async () => (await daemon.readyz()).body
  await until(async () => /NETWORK_OVERLAPS.*10\.244\.0\.0\/16 and 10\.244\.64\.0\/20 of lan0/.test(await said()), {
    what: 'the overlap'
  })
  assert.match(await said(), /BRIDGE_FOREIGN.*cni0 has 10\.244\.250\.1\/24/)
  // Every ADD fails, so the node is not ready.
  const pod = await cluster.node(1).pod('p')
  const refused = await cluster.call(cluster.node(1), 'ADD', 'p', pod.netns, {}, { check: false })
  assert.match(refused.error?.msg ?? '', /cni0/)
  assert.equal((await daemon.readyz()).status, 503)
  const status = () => cluster.call(cluster.node(1), 'STATUS', 'p', '', {}, { check: false })
  assert.equal((await status()).error?.code, 50)
  await cluster.node(1).sh('ip link del lan0; ip addr del 10.244.250.1/24 dev cni0')
  await until(async () => !/NETWORK_OVERLAPS|BRIDGE_FOREIGN/.test(await said()), { what: 'the end of both' })
  await daemon.ready()
  assert.equal((await status()).error, undefined)
  await daemon.stop()
  // The network contains the underlay, and a lease has replaced the host's route to it: etcd is cut off.
  const node = cluster.node(1)
  const underlay = node.address.replace(/\d+$/, '0')
  const network = {
    Network: '192.168.0.0/16',
    SubnetMin: underlay,
    SubnetMax: '192.168.12.0',
    Backend: { Type: 'vxlan' }
  }
  await cluster.etcd.put(`${PREFIX}/config`, JSON.stringify(network))
  const data = { VNI: 1, VtepMAC: '02:00:00:00:00:09' }
  const lease = { PublicIP: node.address.replace(/\d+$/, '99'), BackendType: 'vxlan', BackendData: data }
  await cluster.etcd.put(`${PREFIX}/subnets/${underlay}-24`, JSON.stringify(lease))
  const route = async () => (await node.exec('ip', ['route', 'show', 'exact', `${underlay}/24`])).stdout.trim()
  const kernels = await route()
  assert.match(kernels, /proto kernel/)
  await node.sh(`ip route replace ${underlay}/24 via ${lease.PublicIP} dev eth0 onlink proto 87`)
  daemon.launch()
  await daemon.ready()
  await until(async () => /LEASE_MALFORMED.*covers 192\.168\.10\.0\/24/.test(await said()), {
    what: 'the lease by name'
  })
  assert.equal(await route(), kernels)
  const own = [...(await cluster.etcd.list(`${PREFIX}/subnets/`))].filter(([, text]) => text.includes(node.address))
  assert.match(own.map(([key]) => key).join(), /192\.168\.1[12]\.0-24/)
})

test('a configuration that would cut pods off is reported with the difference, and applied by a restart', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1] })
  const daemon = cluster.daemon(1)
  await cluster.etcd.put(`${PREFIX}/config`, '{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}')
  const said = async () => (await daemon.readyz()).body
  await until(async () => /CONFIG_CHANGED.*network\/config in etcd.*10\.244\.0\.0\/16 here/.test(await said()), {
    what: 'the condition'
  })
  assert.equal((await daemon.readyz()).status, 200)
  // Deleted: a restarted weftd would serve no pods, so the cure is to write it again, with what is in use.
  await cluster.etcd.ctl(['del', `${PREFIX}/config`])
  await until(async () => /there is none any more\. Cure: .*"10\.244\.0\.0\/16".*do not restart/.test(await said()), {
    what: 'the deletion'
  })
  await cluster.etcd.put(`${PREFIX}/config`, '{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}')
  await until(async () => /CONFIG_CHANGED.*restore the one in use.*drain each node first/.test(await said()), {
    what: 'the new one'
  })
  await daemon.restart()
  assert.equal((await said()).includes('CONFIG_CHANGED'), false)
  assert.match([...(await cluster.etcd.list(`${PREFIX}/subnets/`)).keys()].join(), /10\.99\./)
})

test('bad flags end the daemon with all errors named', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const daemon = await cluster.join(cluster.node(1), { wait: false, args: ['--ifase=eth0', '--public-ip=nonsense'] })
  assert.notEqual((await daemon.exited()).code, 0)
  assert.match(daemon.text, /--ifase.*--iface/s)
  assert.match(daemon.text, /--public-ip.*nonsense/s)
})

test('a start that cannot succeed ends with one line that has the cure, and no stack', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  for (const [args, expected] of [
    [['--store=embedded', '--embedded-path=/proc/leases.db'], /\/proc\/leases\.db cannot be used/],
    [['--etcd-cafile=/nowhere.pem'], /--etcd-cafile \/nowhere\.pem cannot be read/],
    [['--state-dir=/proc/weft'], /\/proc\/weft.*cannot be locked/]
  ] as const) {
    const daemon = await cluster.join(cluster.node(1), { wait: false, args })
    assert.equal((await daemon.exited()).code, 1)
    const last = daemon.log.at(-1) ?? assert.fail(daemon.text)
    assert.match(last.msg, expected)
    assert.ok(typeof last.cure === 'string' && last.cure.length > 10, daemon.text)
    assert.doesNotMatch(daemon.text, /\bat \S+ \(|stack/)
  }
})

test('SubnetMin, SubnetMax and SubnetLen are honoured, and when all are leased the condition says so', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({
    hosts: [3],
    start: false,
    network: {
      Network: '10.244.0.0/16',
      SubnetLen: 26,
      SubnetMin: '10.244.9.0',
      SubnetMax: '10.244.9.64',
      Backend: { Type: 'host-gw' }
    }
  })
  await cluster.join(cluster.node(1))
  await cluster.join(cluster.node(2))
  const third = await cluster.join(cluster.node(3), { wait: false })
  assert.deepEqual([...(await cluster.etcd.list(`${PREFIX}/subnets/`)).keys()].sort(), [
    `${PREFIX}/subnets/10.244.9.0-26`,
    `${PREFIX}/subnets/10.244.9.64-26`
  ])
  await until(async () => (await third.readyz()).body.includes('SUBNETS_EXHAUSTED'), { what: 'the condition' })
  await cluster.daemon(1).stop()
  await cluster.etcd.ctl(['del', `${PREFIX}/subnets/10.244.9.0-26`])
  await cluster.etcd.ctl(['del', `${PREFIX}/subnets/10.244.9.64-26`])
  await third.ready()
})
