// weftctl migrate on a node with flanneld, its conflist and pods of the reference plugins: over and back under ping and
// a TCP connection, killed at every step, and refused where something is missing.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BACKENDS } from '../../daemon/backend/registry.ts'
import { APPLY, type Plan, ROLLBACK } from '../../daemon/migrate/plan.ts'
import { Cluster, linesOf, PREFIX, type Resident, reachEachOther } from '../lab/cluster.ts'
import { CNI_BIN, CONFLIST, FlannelHost } from '../lab/flannel-host.ts'
import { missingPeer } from '../lab/peers.ts'
import { until } from '../lab/run.ts'
import { weftctl } from '../lab/weftctl.ts'

const skip = process.getuid?.() === 0 ? missingPeer('bin/flanneld') : 'needs root'
const keeper = fileURLToPath(new URL('../lab/line-keeper.ts', import.meta.url))

async function scene(network: object, hosts: readonly number[] = [2]) {
  const cluster = await Cluster.start({ hosts, start: false, network: { Network: '10.244.0.0/16', ...network } })
  const [first, second] = [cluster.node(1), cluster.node(2)]
  const [here, there] = [await FlannelHost.start(first, cluster.etcd), await FlannelHost.start(second, cluster.etcd)]
  const identity = async () => ({
    device: (await linesOf(first, 'ip', '-o', 'link', 'show', 'type', 'vxlan')).map((line) =>
      /^\d+: flannel\.1|link\/ether \S+/g[Symbol.match](line)
    ),
    leases: [...(await cluster.etcd.list(`${PREFIX}/subnets/`))],
    list: existsSync(first.path(CONFLIST)) ? here.read(CONFLIST) : undefined,
    plugins: (await first.sh(`cd ${CNI_BIN}; sha256sum flannel bridge host-local portmap`)).stdout,
    subnet: /FLANNEL_SUBNET=\S+/.exec(here.read('/run/flannel/subnet.env'))?.[0]
  })
  return { cluster, here, there, identity }
}

/** A connection from a pod to another that must carry lines all the time. */
async function connection(from: Resident, to: Resident) {
  const server = to.pod.spawn(process.execPath, [keeper, 'serve', '7000'])
  await until(() => server.text().includes('listening'), { what: 'the server to listen' })
  const client = from.pod.spawn(process.execPath, [keeper, 'keep', to.address, '7000'])
  const carries = async () => {
    const before = client.text().length
    await until(() => client.text().length > before || client.ended !== undefined, { what: 'lines on the connection' })
    assert.doesNotMatch(client.text(), /broken/)
  }
  await carries()
  return { carries }
}

for (const type of ['vxlan', 'host-gw']) {
  test(`${type}: a node moves to Weft and back, and neither a ping nor a TCP connection loses anything`, {
    skip,
    timeout: 300_000
  }, async () => {
    const { cluster, here, there, identity } = await scene({ Backend: { Type: type } })
    await using _cluster = cluster
    const [old, ported, far] = [
      await here.pod(),
      await here.pod([{ hostPort: 8080, containerPort: 7000, protocol: 'tcp' }]),
      await there.pod()
    ]
    await reachEachOther([old, ported, far])
    const before = await identity()
    const line = await connection(far, ported)

    const plan = await here.migrate('plan')
    assert.equal(plan.code, 0, plan.stdout)
    assert.match(plan.stdout, /Packets of pods that are lost: none/)
    if (type === 'vxlan') assert.match(plan.stdout, /device flannel\.1, MAC [\da-f:]{17}\n/)
    assert.match(plan.stdout, /WEFTD_IFACE=eth0/)
    assert.match(plan.stdout, /FLANNEL-POSTRTG/)
    assert.deepEqual(await identity(), before, 'plan changes nothing')
    assert.ok(await here.flanneldRuns)

    const over = await far.pod.pingDuring(old.address, async () => {
      await here.migrated('apply')
      const young = await here.pod()
      await reachEachOther([old, young, ported, far])
      await line.carries()
      await young.del()
    })
    assert.deepEqual(over.lost, [], 'packets lost while weftd took over')
    const during = await identity()
    assert.deepEqual([during.device, during.leases, during.subnet], [before.device, before.leases, before.subnet])
    assert.equal(existsSync(here.host.path(CONFLIST)), false)
    assert.equal(await here.flanneldRuns, false)
    assert.doesNotMatch((await here.host.exec('iptables-save')).stdout, /FLANNEL/)
    assert.match((await here.host.exec('nft', ['list', 'table', 'inet', 'weft'])).stdout, /masquerade/)

    const extra = await here.pod()
    const back = await far.pod.pingDuring(old.address, async () => {
      await here.migrated('rollback')
      await reachEachOther([old, extra, await here.pod(), ported, far])
      await line.carries()
    })
    assert.deepEqual(back.lost, [], 'packets lost while flanneld took over again')
    assert.deepEqual(await identity(), before)
    assert.match((await here.host.exec('iptables-save')).stdout, /FLANNEL-POSTRTG/)
    assert.ok(!existsSync(here.host.path('/etc/cni/net.d/10-weft.conflist')))
    assert.doesNotMatch((await here.host.exec('nft', ['list', 'ruleset'])).stdout, /tunnel_input/)
    await extra.del()
    await old.del()
  })
}

test('refused where commands are missing; killed at each step, either way: the same command again completes it', {
  skip,
  timeout: 600_000
}, async () => {
  const { cluster, here, there, identity } = await scene({ Backend: { Type: 'vxlan' } })
  await using _cluster = cluster
  const [old, doomed, far] = [
    await here.pod(),
    await here.pod([{ hostPort: 8080, containerPort: 7000, protocol: 'tcp' }]),
    await there.pod()
  ]
  await reachEachOther([old, far])
  const before = await identity()
  for (const action of ['plan', 'apply']) {
    const { code, stdout } = await weftctl(here.host, ['migrate', action])
    assert.equal(code, 1)
    assert.match(stdout, /--stop-flanneld=[\s\S]*--start-weftd=/)
  }
  const plan = JSON.parse((await here.migrate('plan', ['--json'])).stdout) as Pick<Plan, 'faults' | 'steps'>
  assert.deepEqual([plan.faults, plan.steps.map(({ name }) => name)], [[], [...APPLY]])
  assert.deepEqual(await identity(), before, 'what is missing changes nothing')

  const hostPorts = async () => (await here.host.exec('iptables-save', ['-t', 'nat'])).stdout.match(/CNI-DN-\w+/g) ?? []
  assert.notEqual((await hostPorts()).length, 0)

  const { lost } = await far.pod.pingDuring(old.address, async () => {
    assert.ok((await here.killedAtEach('apply', APPLY)) > APPLY.length / 2)
    await here.migrated('rollback')
    assert.deepEqual(await identity(), before, 'back from the middle')

    await here.migrated('apply')
    assert.equal(existsSync(here.host.path(CONFLIST)), false)
    assert.notEqual((await hostPorts()).length, 0, 'host ports of before stay')
    await doomed.del()
    assert.deepEqual(await hostPorts(), [], 'and go with their pod')

    assert.ok((await here.killedAtEach('rollback', ROLLBACK)) > ROLLBACK.length / 2)
    await here.migrated('rollback')
  })
  assert.deepEqual(lost, [])
  assert.deepEqual(await identity(), before)
  assert.equal(await here.flanneldRuns, true)
  await reachEachOther([old, await here.pod(), far])
})

/** Their devices end with flanneld; of those that this kernel has. The emulator has stories of the others. */
const dying = BACKENDS.filter(({ type, flannelDevice }) => type === 'udp' && flannelDevice?.outlivesFlanneld === false)
for (const { type } of dying) {
  test(`${type}: the gap is in the plan beforehand, and below two seconds either way`, {
    skip,
    timeout: 600_000
  }, async (t) => {
    const { cluster, here, there } = await scene({ Backend: { Type: type } })
    await using _cluster = cluster
    const [old, far] = [await here.pod(), await there.pod()]
    await reachEachOther([old, far])
    assert.match((await here.migrate('plan')).stdout, /ends with flanneld: .* less than two seconds/)
    for (const action of ['apply', 'rollback'] as const) {
      const { longestGapMs } = await far.pod.pingDuring(old.address, () => here.migrated(action))
      t.diagnostic(`${action}: ${longestGapMs} ms`)
      assert.ok(longestGapMs < 2_000, `${action} lost packets for ${longestGapMs} ms`)
      await reachEachOther([old, await here.pod(), far])
    }
  })
}
