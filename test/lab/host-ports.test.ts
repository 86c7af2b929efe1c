// Host ports of the weft plugin: from where they are reachable and with which source, the error for a taken port, and
// that they outlive the daemon (cases 52 to 60 of the CNI reference).
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { DEFAULT_CONFLIST } from '../../daemon/lifecycle/conflist.ts'
import { Cluster, linesOf, type Resident } from './cluster.ts'
import type { Host } from './host.ts'
import type { Place } from './lab-scene.ts'
import { outline, ruleset } from './ruleset.ts'
import { until } from './run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const script = (name: string) => fileURLToPath(new URL(name, import.meta.url))

type Mapping = {
  readonly hostPort?: unknown
  readonly containerPort?: unknown
  readonly protocol?: unknown
  readonly hostIP?: string
}
const tcp = (hostPort: number, containerPort = 80): Mapping => ({ hostPort, containerPort, protocol: 'tcp' })
const udp = (hostPort: number, containerPort = 80): Mapping => ({ hostPort, containerPort, protocol: 'udp' })
const withPorts = (...portMappings: readonly Mapping[]) => ({ runtimeConfig: { portMappings } })

/** Starts the pod's server on port 80. */
async function serve(resident: Resident, name = 'server'): Promise<void> {
  const program = resident.pod.spawn(process.execPath, [script('echo-server.ts'), name, '80'])
  await until(() => program.text().includes('listening'), { what: 'the server in the pod' })
}

/** The answer there, or the error. */
async function ask(place: Place, protocol: 'tcp' | 'udp', address: string, port: number, from = 0): Promise<string> {
  const args = [script('echo-client.ts'), protocol, address, String(port), String(from)]
  return (await place.exec(process.execPath, args, { check: false })).stdout.trim()
}

const answers = async (place: Place, address: string, port: number): Promise<boolean> =>
  (await ask(place, 'tcp', address, port)).startsWith('server sees')

/** The elements of the maps, one line of JSON each. */
async function elements(host: Host): Promise<readonly string[]> {
  const { stdout } = await host.exec('nft', ['-j', 'list', 'ruleset'])
  const { nftables } = JSON.parse(stdout) as {
    readonly nftables: readonly { readonly map?: { readonly name: string; readonly elem?: readonly unknown[] } }[]
  }
  return nftables.flatMap(({ map }) =>
    map?.name.startsWith('host_ports') ? (map.elem ?? []).map((element) => JSON.stringify(element)) : []
  )
}

/** The kernel's nftables notifications while `work` runs, one line for each change. */
async function changesDuring(host: Host, work: () => Promise<void>): Promise<readonly string[]> {
  await using monitor = host.spawn('nft', ['monitor'])
  const isTold = async (table: string) => {
    await host.exec('nft', ['add', 'table', 'inet', table])
    await host.exec('nft', ['delete', 'table', 'inet', table])
    return monitor.text().includes(`delete table inet ${table}\n`)
  }
  await until(() => isTold('beginning'), { what: 'nft to listen' })
  await work()
  await until(() => isTold('ending'), { what: 'nft to tell all' })
  return monitor
    .text()
    .split('\n')
    .filter((line) => line !== '' && !/^# new generation|table inet (beginning|ending)$/.test(line))
}

const dual = {
  EnableIPv4: true,
  EnableIPv6: true,
  Network: '10.244.0.0/16',
  IPv6Network: 'fd00:10::/48',
  Backend: { Type: 'host-gw' }
}

describe('a host port', { skip }, () => {
  for (const mode of ['bridge', 'routed'] as const) {
    test(`case 52: is reached from other hosts, their pods, this host, its pods and the pod itself, in ${mode} mode`, async () => {
      await using cluster = await Cluster.start({ hosts: [2], args: ['--ip-masq'] })
      const [here, there] = [cluster.node(1), cluster.node(2)]
      const [server, neighbour, far] = [
        await cluster.pod(here, { mode, ...withPorts(tcp(8080), udp(8080)) }),
        await cluster.pod(here, { mode }),
        await cluster.pod(there, { mode })
      ]
      await serve(server)
      const { address } = here
      const gateway = `${server.address.split('.').slice(0, 3).join('.')}.1`
      for (const protocol of ['tcp', 'udp'] as const) {
        const seenBy = (place: Place, to: string) => ask(place, protocol, to, 8080)
        assert.equal(await seenBy(there, address), `server sees ${there.address}`)
        assert.equal(await seenBy(cluster.lab.router, address), 'server sees 192.168.10.1')
        assert.match(await seenBy(far.pod, address), /^server sees/)
        assert.equal(await seenBy(here, address), `server sees ${address}`)
        assert.equal(await seenBy(here, gateway), `server sees ${gateway}`)
        for (const loopback of ['127.0.0.1', '127.8.9.10'])
          assert.equal(await seenBy(here, loopback), `server sees ${gateway}`)
        assert.match(await seenBy(neighbour.pod, address), /^server sees/)
        assert.match(await seenBy(neighbour.pod, gateway), /^server sees/)
        assert.equal(await seenBy(server.pod, address), `server sees ${gateway}`)
        assert.equal(await seenBy(server.pod, gateway), `server sees ${gateway}`)
      }
      assert.equal(await ask(here, 'tcp', '192.168.10.1', 8080), 'connect ECONNREFUSED 192.168.10.1:8080')
    })
  }

  test('case 52: pods reach their own and each other’s whether or not the bridge’s packets pass the host’s firewall', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    const server = await cluster.pod(here, { mode: 'bridge', ...withPorts(tcp(8080)) })
    const neighbour = await cluster.pod(here, { mode: 'bridge' })
    await serve(server)
    // Behind a Service, as kube-proxy makes one: with the list that weftd writes, a pod reaches itself through it, too.
    const [plugin] = (JSON.parse(DEFAULT_CONFLIST) as { readonly plugins: readonly object[] }).plugins
    const own = await cluster.pod(here, { ...plugin, mode: 'bridge' })
    await serve(own)
    await here.sh(`nft -f - <<'END'
table ip service {
  chain in { type nat hook prerouting priority dstnat; ip daddr 10.96.0.10 tcp dport 80 dnat to ${own.address}; }
  chain back { type nat hook postrouting priority srcnat; ct status dnat ip saddr ${own.address} ip daddr ${own.address} masquerade; }
}
END`)
    for (const passes of [0, 1]) {
      await here.sh(`echo ${passes} > /proc/sys/net/bridge/bridge-nf-call-iptables`)
      for (const { pod } of [server, neighbour]) assert.equal(await answers(pod, here.address, 8080), true, pod.name)
      assert.equal(await answers(own.pod, '10.96.0.10', 80), true, `itself, ${passes}`)
    }
  })

  test('case 52: in both families; a pod reaches nothing of the host’s loopback', async () => {
    await using cluster = await Cluster.start({ hosts: [2], network: dual, ipv6: true })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    const server = await cluster.pod(here, { mode: 'bridge', ...withPorts(tcp(8080), udp(8080)) })
    await serve(server)
    for (const address of [here.address, here.address6 ?? assert.fail('no IPv6')]) {
      for (const protocol of ['tcp', 'udp'] as const) {
        for (const place of [there, here, server.pod])
          assert.match(
            await ask(place, protocol, address, 8080),
            /^server sees/,
            `${place.name} ${address} ${protocol}`
          )
      }
    }
    // No IPv6 loopback: refused at once, so that `localhost` falls back to 127.0.0.1.
    assert.match(await ask(here, 'tcp', '::1', 8080), /ECONNREFUSED/)
    const secret = here.spawn(process.execPath, [script('echo-server.ts'), 'secret', '9999'])
    await until(() => secret.text().includes('listening'), { what: 'a server of the host' })
    await server.pod.sh(
      'ip addr add 127.0.0.9/8 dev lo; ip link set lo down; ip route add 127.0.0.1 via 10.244.0.1 2>/dev/null || ip route add 127.0.0.1 dev eth0',
      { check: false }
    )
    assert.equal(await ask(server.pod, 'tcp', '127.0.0.1', 9999), 'no answer')
    assert.match(await ask(here, 'tcp', '127.0.0.1', 9999), /^secret/)
  })

  test('case 53: over UDP a second pod that takes the port over is reached by a client that keeps its source port', async () => {
    await using cluster = await Cluster.start({ hosts: [2] })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    const asked = (port = 5353) => ask(there, 'udp', here.address, port, 40_000)
    assert.match(await asked(), /ECONNREFUSED|no answer/)
    const other = await cluster.pod(here, withPorts(udp(5354)))
    await serve(other, 'other')
    assert.equal(await asked(5354), `other sees ${there.address}`)
    const first = await cluster.pod(here, withPorts(udp(5353)))
    await serve(first, 'first')
    assert.equal(await asked(), `first sees ${there.address}`)
    await cluster.call(here, 'DEL', first.id, first.pod.netns)
    assert.doesNotMatch(await asked(), /sees/)
    const second = await cluster.pod(here, withPorts(udp(5353)))
    await serve(second, 'second')
    assert.equal(await asked(), `second sees ${there.address}`)
    // Unrelated entries are not deleted.
    assert.equal((await linesOf(here, 'conntrack', '-L', '-p', 'udp', '--orig-port-dst', '5354')).length, 1)
  })

  test('case 54: with hostIP it is of that address only; 0.0.0.0 and none are all; the other family is ignored', async () => {
    await using cluster = await Cluster.start({ hosts: [2] })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    await here.exec('ip', ['addr', 'add', '192.168.10.77/24', 'dev', 'eth0'])
    const server = await cluster.pod(
      here,
      withPorts(
        { ...tcp(8081), hostIP: '192.168.10.77' },
        { ...tcp(8082), hostIP: '0.0.0.0' },
        { ...tcp(8083), hostIP: '' },
        { ...tcp(8084), hostIP: 'fd00:10::5' },
        { ...tcp(8085), hostIP: '::' },
        { ...tcp(8086), hostIP: '127.0.0.1' }
      )
    )
    await serve(server)
    const reached = async (port: number) =>
      Promise.all([answers(there, here.address, port), answers(there, '192.168.10.77', port)])
    assert.deepEqual(await reached(8081), [false, true])
    assert.deepEqual(await reached(8082), [true, true])
    assert.deepEqual(await reached(8083), [true, true])
    assert.deepEqual(await reached(8084), [false, false])
    assert.deepEqual(await reached(8085), [false, false])
    assert.deepEqual(await reached(8086), [false, false])
    assert.equal(await answers(here, '127.0.0.1', 8086), true)
    // Another pod may have the same port of another address, and is refused the one that is taken.
    const other = await cluster.pod(here, withPorts({ ...tcp(8081), hostIP: here.address }))
    await serve(other)
    assert.deepEqual(await reached(8081), [true, true])
  })

  test('case 55: forty of one pod all work, and after DEL none is left', async () => {
    await using cluster = await Cluster.start({ hosts: [2] })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    const mappings = Array.from({ length: 40 }, (_, at) => (at % 2 === 0 ? tcp(9000 + at) : udp(9000 + at)))
    const server = await cluster.pod(here, withPorts(...mappings))
    await serve(server)
    const answer = (at: number) => ask(there, at % 2 === 0 ? 'tcp' : 'udp', here.address, 9000 + at)
    for (let at = 0; at < 40; at++) assert.equal(await answer(at), `server sees ${there.address}`, String(at))
    assert.equal((await elements(here)).length, 40)
    await cluster.call(here, 'DEL', server.id, server.pod.netns)
    for (const at of [0, 1, 38, 39]) assert.doesNotMatch(await answer(at), /sees/)
    const { stdout } = await here.exec('nft', ['list', 'ruleset'])
    for (const trace of [server.id, server.address]) assert.equal(stdout.includes(trace), false, trace)
    assert.deepEqual(await elements(here), [])
  })

  test('costs the kernel the same however many there are: no additional chain, rule or map for a thousand, and a pod adds and removes its own elements', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    await cluster.pod(here, withPorts(tcp(8080)))
    const ofOnePod = () =>
      changesDuring(here, async () => {
        const { id, pod } = await cluster.pod(here, withPorts(tcp(30_000), udp(30_001)))
        await cluster.call(here, 'DEL', id, pod.netns)
      })
    const [outlineOfOne, changesAtOne] = [await outline(here), await ofOnePod()]
    const many = Array.from({ length: 999 }, (_, at) => (at % 2 === 0 ? tcp(20_000 + at) : udp(20_000 + at)))
    await cluster.pod(here, withPorts(...many))
    assert.equal((await elements(here)).length, 1_000)
    const outlineOfMany = await outline(here)
    assert.deepEqual(
      {
        added: outlineOfMany.filter((line) => !outlineOfOne.includes(line)),
        removed: outlineOfOne.filter((line) => !outlineOfMany.includes(line))
      },
      { added: [], removed: [] }
    )
    assert.deepEqual(outlineOfMany, outlineOfOne)
    const changesAtAThousand = await ofOnePod()
    for (const changes of [changesAtOne, changesAtAThousand]) {
      assert.deepEqual(
        changes.map((line) => line.replace(/^(\w+ element inet weft \w+ \{ (?:tcp \. 30000|udp \. 30001)).*/, '$1')),
        ['tcp . 30000', 'udp . 30001', 'tcp . 30000', 'udp . 30001'].map(
          (key, at) => `${at < 2 ? 'add' : 'delete'} element inet weft host_ports_4 { ${key}`
        )
      )
    }
  })

  test('case 56: without any the ruleset stays as it is', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const before = await ruleset(cluster.node(1))
    await cluster.pod(cluster.node(1), withPorts())
    await cluster.pod(cluster.node(1), { runtimeConfig: null })
    assert.equal(await ruleset(cluster.node(1)), before)
  })

  test('case 57: an invalid port or protocol is refused by its value, and nothing changes', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    const [before, pod] = [await ruleset(here), await here.pod('wrong')]
    for (const [wrong, value] of [
      [{ ...tcp(0) }, '0'],
      [{ ...tcp(-1) }, '-1'],
      [{ ...tcp(65_536) }, '65536'],
      [{ ...tcp(80, 0) }, '0'],
      [{ hostPort: '80', containerPort: 80, protocol: 'tcp' }, '"80"'],
      [{ ...tcp(80), protocol: 'icmp' }, '"icmp"'],
      [{ ...tcp(80), hostIP: '10.0.0.300' }, '"10.0.0.300"']
    ] as const) {
      const { error } = await cluster.call(here, 'ADD', 'wrong', pod.netns, withPorts(wrong), { check: false })
      assert.equal(error?.code, 7, JSON.stringify(wrong))
      assert.ok(error?.msg.includes(value), `${error?.msg} names ${value}`)
    }
    assert.equal(await ruleset(here), before)
    assert.deepEqual((await linesOf(here, 'ls', '/var/lib/cni')).length, 0)
  })

  test('case 59: CHECK passes after ADD; a port removed by hand is restored, and its pod is reachable again', async () => {
    await using cluster = await Cluster.start({ hosts: [2] })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    const config = withPorts(tcp(8080), udp(8080))
    const server = await cluster.pod(here, config)
    await serve(server)
    const check = () => cluster.call(here, 'CHECK', server.id, server.pod.netns, config, { prevResult: server.result })
    await check()
    await here.exec('nft', ['delete', 'element', 'inet', 'weft', 'host_ports_4', '{ tcp . 8080 }'])
    await until(async () => (await elements(here)).length === 2, { what: 'the port to be back' })
    assert.equal(await answers(there, here.address, 8080), true)
    await here.exec('nft', ['flush', 'ruleset'])
    await until(async () => (await elements(here)).length === 2, { what: 'both ports to be back' })
    assert.equal(await answers(there, here.address, 8080), true)
    await check()
  })

  test('case 60: DEL frees it without prevResult, without portMappings, without namespace, and twice', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    for (const [netnsStays, config] of [
      [true, {}],
      [false, {}],
      [true, withPorts(tcp(8080))],
      [true, withPorts({ hostPort: 'broken' })]
    ] as const) {
      const server = await cluster.pod(here, withPorts(tcp(8080), udp(8080)))
      assert.equal((await elements(here)).length, 2)
      if (!netnsStays) await server.pod[Symbol.asyncDispose]()
      for (let time = 0; time < 2; time++)
        await cluster.call(here, 'DEL', server.id, netnsStays ? server.pod.netns : '', config)
      assert.deepEqual(await elements(here), [])
    }
  })

  test('that is taken is refused by its holder’s name before anything is done, and free after the holder’s DEL', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    const holder = await cluster.pod(here, withPorts(tcp(8080)))
    const pod = await here.pod('second')
    const add = (mapping: Mapping) =>
      cluster.call(here, 'ADD', 'second', pod.netns, withPorts(mapping), { check: false })
    for (const mapping of [tcp(8080), { ...tcp(8080), hostIP: here.address }, { ...tcp(8080), hostIP: '0.0.0.0' }]) {
      const { error } = await add(mapping)
      assert.equal(error?.code, 108)
      assert.match(error?.msg ?? '', new RegExp(`host port 8080/tcp.* is taken by pod lab/${holder.id}`))
    }
    assert.equal((await linesOf(here, 'ls', '/var/lib/cni/networks/lab')).includes('second'), false)
    assert.equal((await pod.ip('link')).length, 1)
    // Two at once: one of them gets it.
    const pods = await Promise.all(['a', 'b'].map((name) => here.pod(name)))
    const both = await Promise.all(
      pods.map(({ name, netns }) => cluster.call(here, 'ADD', name, netns, withPorts(tcp(8081)), { check: false }))
    )
    assert.deepEqual(both.map(({ error }) => error?.code ?? 0).sort(), [0, 108])
    assert.equal((await add(udp(8080))).error, undefined)
    await cluster.call(here, 'DEL', 'second', pod.netns)
    await cluster.call(here, 'DEL', holder.id, holder.pod.netns)
    assert.equal((await add(tcp(8080))).error, undefined)
  })

  test('outlives the daemon: after kill -9 it works, is known, is repaired, and is removed with DEL', async () => {
    await using cluster = await Cluster.start({ hosts: [2] })
    const [here, there] = [cluster.node(1), cluster.node(2)]
    const mappings = withPorts(tcp(8080), udp(8080), { ...tcp(8081), hostIP: here.address })
    const servers = [
      await cluster.pod(here, { mode: 'bridge', ...mappings }),
      await cluster.pod(here, { mode: 'routed', ...withPorts(tcp(8082)) })
    ]
    for (const server of servers) await serve(server)
    const works = async () => {
      for (const port of [8080, 8081, 8082])
        assert.equal(await answers(there, here.address, port), true, `port ${port}`)
      for (const port of [8080, 8082]) assert.equal(await answers(here, '127.0.0.1', port), true, `localhost ${port}`)
    }
    await works()
    await cluster.daemon(1).kill('SIGKILL')
    await works()
    cluster.daemon(1).launch()
    await cluster.daemon(1).ready()
    await works()
    assert.equal((await elements(here)).length, 4)
    const pod = await here.pod('late')
    const { error } = await cluster.call(here, 'ADD', 'late', pod.netns, withPorts(tcp(8080)), { check: false })
    assert.match(error?.msg ?? '', new RegExp(`taken by pod lab/${servers[0]?.id}`))
    await here.exec('nft', ['flush', 'ruleset'])
    await until(async () => (await elements(here)).length === 4, { what: 'the ports to be back' })
    await works()
    for (const server of servers) await cluster.call(here, 'DEL', server.id, server.pod.netns)
    assert.deepEqual(await elements(here), [])
    assert.equal(
      (await linesOf(here, 'ip', '-o', 'link')).some((line) => /veth[0-9a-f]{8}|weft[0-9a-f]{8}/.test(line)),
      false
    )
  })

  test('of a pod that vanished while no daemon ran is free again', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    const server = await cluster.pod(here, withPorts(tcp(8080)))
    await cluster.daemon(1).kill('SIGKILL')
    await server.pod[Symbol.asyncDispose]()
    cluster.daemon(1).launch()
    await cluster.daemon(1).ready()
    await until(async () => (await elements(here)).length === 0, { what: 'the stale port to go' })
    await cluster.pod(here, withPorts(tcp(8080)))
  })
})
