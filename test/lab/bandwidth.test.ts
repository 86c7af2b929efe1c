// Limits to a pod's throughput: what tc shows, what iperf3 measures, and that they go and come back with the pod (cases
// 61 to 65 of the CNI reference).
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cluster, linesOf, type Resident } from './cluster.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

const RATE = 8_000_000
const both = { ingressRate: RATE, ingressBurst: 800_000, egressRate: RATE, egressBurst: 800_000 }
const limited = (bandwidth: object) => ({ runtimeConfig: { bandwidth } })

/** Queueing disciplines that somebody chose, without the fields that count. */
const disciplines = async (host: Host): Promise<readonly string[]> =>
  (await linesOf(host, 'tc', 'qdisc', 'show'))
    .filter((line) => /^qdisc (tbf|ingress)/.test(line))
    .map((line) => line.replaceAll(/(veth|weft)[0-9a-f]{8}/g, '$1').replace(/ refcnt \d+/, ''))
    .sort()

const TOWARDS = 'qdisc tbf 1: dev veth root rate 8Mbit burst 100000b lat 25ms'
const FROM = 'qdisc tbf 1: dev weft root rate 8Mbit burst 100000b lat 25ms'
const INGRESS = 'qdisc ingress ffff: dev veth parent ffff:fff1 ----------------'

const ifbs = async (host: Host): Promise<readonly string[]> =>
  (await linesOf(host, 'ip', '-o', 'link', 'show', 'type', 'ifb')).map((line) => String(line.split(': ')[1]))

/** Bits a second that arrive within some seconds, by iperf3 from the host to the pod or (`reverse`) back. */
async function throughput(host: Host, resident: Resident, reverse: boolean): Promise<number> {
  const server = resident.pod.spawn('iperf3', ['--server', '--one-off', '--forceflush'])
  await until(() => server.text().includes('listening'), { what: 'iperf3 to listen' })
  const args = ['--client', resident.address, '--time', '6', '--omit', '1', '--json', ...(reverse ? ['--reverse'] : [])]
  const { stdout } = await host.exec('iperf3', args)
  await server.exited()
  return JSON.parse(stdout).end.sum_received.bits_per_second
}

const share = (bits: number) => Math.round((bits / RATE) * 100)

describe('bandwidth', { skip }, () => {
  for (const mode of ['bridge', 'routed'] as const) {
    test(`case 61: both directions are held at the rate, in ${mode} mode`, async () => {
      await using cluster = await Cluster.start({ hosts: [1] })
      const here = cluster.node(1)
      const resident = await cluster.pod(here, { mode, ...limited(both) })
      assert.deepEqual(await disciplines(here), [INGRESS, TOWARDS, FROM])
      const interfaces = resident.result.interfaces as readonly { readonly name: string; readonly sandbox?: string }[]
      assert.deepEqual(await ifbs(here), [interfaces.at(-1)?.name])
      for (const reverse of [false, true]) {
        const percent = share(await throughput(here, resident, reverse))
        assert.ok(percent >= 80 && percent <= 105, `${reverse ? 'from' : 'to'} the pod: ${percent} % of the rate`)
      }
      await cluster.call(
        here,
        'CHECK',
        resident.id,
        resident.pod.netns,
        { mode, ...limited(both) },
        {
          prevResult: resident.result
        }
      )
    })
  }

  test('case 62: a direction that is not configured is not shaped', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    const towards = await cluster.pod(here, limited({ ingressRate: RATE, ingressBurst: 800_000 }))
    assert.deepEqual(await disciplines(here), [TOWARDS])
    assert.ok(share(await throughput(here, towards, true)) > 200)
    await cluster.call(here, 'DEL', towards.id, towards.pod.netns)
    assert.deepEqual(await disciplines(here), [])
    await cluster.pod(here, limited({ egressRate: RATE, egressBurst: 800_000, ingressRate: 0, ingressBurst: 0 }))
    assert.deepEqual(await disciplines(here), [INGRESS, FROM])
  })

  test('case 63: a rate without a burst, a burst without a rate and too large a burst are refused by their values', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    const pod = await here.pod('wrong')
    for (const [bandwidth, named] of [
      [{ ingressRate: RATE }, /runtimeConfig\.bandwidth\.ingressRate: 8000000/],
      [{ egressBurst: 800_000 }, /runtimeConfig\.bandwidth\.egressBurst: 800000/],
      [{ egressRate: RATE, egressBurst: 34_359_738_360 }, /runtimeConfig\.bandwidth\.egressBurst: 34359738360/]
    ] as const) {
      const { error } = await cluster.call(here, 'ADD', 'wrong', pod.netns, limited(bandwidth), { check: false })
      assert.equal(error?.code, 7)
      assert.match(error?.msg ?? '', named)
    }
    assert.deepEqual(await disciplines(here), [])
    await cluster.pod(here, limited({ egressRate: RATE, egressBurst: 34_359_738_359 }))
    assert.equal((await ifbs(here)).length, 1)
  })

  test('case 64: what the configuration says wins over the runtime', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    await cluster.pod(cluster.node(1), {
      ingressRate: RATE,
      ingressBurst: 800_000,
      ...limited({ ...both, ingressRate: 1_000_000 })
    })
    assert.deepEqual(await disciplines(cluster.node(1)), [TOWARDS])
  })

  test('case 65: DEL takes the ifb away, twice, and without a namespace', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const here = cluster.node(1)
    for (const stays of [true, false]) {
      const resident = await cluster.pod(here, limited(both))
      if (!stays) await resident.pod[Symbol.asyncDispose]()
      for (let time = 0; time < 2; time++) await cluster.call(here, 'DEL', resident.id, stays ? resident.pod.netns : '')
      assert.deepEqual([await ifbs(here), await disciplines(here)], [[], []])
    }
  })

  test('what somebody takes off is put on again, also after the daemon was killed; a vanished pod leaves no ifb', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const [here, daemon] = [cluster.node(1), cluster.daemon(1)]
    const resident = await cluster.pod(here, limited(both))
    const link = (await linesOf(here, 'ip', '-o', 'link', 'show', 'type', 'veth'))
      .map((line) => /^\d+: (veth[0-9a-f]{8})@/.exec(line)?.[1])
      .find((name) => name !== undefined)
    const ifb = link?.replace('veth', 'weft')
    const damages = [
      `tc qdisc del dev ${link} root`,
      `tc qdisc replace dev ${link} root pfifo`,
      `tc qdisc change dev ${link} handle 1: root tbf rate 80mbit burst 100000b latency 25ms`,
      `tc qdisc del dev ${link} ingress`,
      `tc qdisc del dev ${ifb} root`,
      `ip link del ${ifb}`
    ]
    const whole = async () => {
      assert.deepEqual(await disciplines(here), [INGRESS, TOWARDS, FROM])
      const filter = await linesOf(here, 'tc', 'filter', 'show', 'dev', String(link), 'parent', 'ffff:')
      assert.ok(
        filter.some((line) => line.includes(`Egress Redirect to device ${ifb}`)),
        filter.join('\n')
      )
      return true
    }
    const repairAll = async () => {
      for (const damage of damages) {
        await here.sh(damage)
        await until(whole, { what: `the end of "${damage}"`, deadlineMs: 5_000 })
      }
    }
    await repairAll()
    await daemon.kill('SIGKILL')
    daemon.launch()
    await daemon.ready()
    await whole()
    await repairAll()
    await daemon.kill('SIGKILL')
    await resident.pod[Symbol.asyncDispose]()
    await until(async () => (await disciplines(here)).length === 1, { what: 'the link to go with its namespace' })
    daemon.launch()
    await daemon.ready()
    await until(async () => (await ifbs(here)).length === 0, { what: 'the stale ifb to go' })
    await cluster.call(here, 'DEL', resident.id, '')
  })
})
