// Checksum offload that breaks packets between real nodes: what is lost is found by translated and untranslated packets, and
// offload is turned off for as long as that helps.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cluster } from './cluster.ts'
import type { Host } from './host.ts'
import { answer, become, conditions, wayTo } from './probe-scene.ts'
import { run, until } from './run.ts'
import { weftctl } from './weftctl.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

/** What a kernel leaves in the checksum of a UDP packet that is offloaded (RFC 768: addresses, protocol, length). */
function pseudoSum(source: string, to: string, length: number): string {
  const words = [source, to].flatMap((ip) => {
    const [a = 0, b = 0, c = 0, d = 0] = ip.split('.').map(Number)
    return [a * 256 + b, c * 256 + d]
  })
  let sum = words.reduce((total, word) => total + word, 17 + length)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return `0x${sum.toString(16)}`
}

const offloads = async (host: Host) =>
  /tx-checksum-ip-generic: on/.test((await host.exec('ethtool', ['-k', 'weft.1'])).stdout)

/**
 * Loses what of node 1's probes to node 2 matches and has only the sum of the pseudo-header as checksum, as a network card
 * does that fills in no inner checksum of such a packet. By UDP, VXLAN, Ethernet and IP the inner checksum is at byte 56.
 * Returns the address that is probed.
 */
async function breakOffload(cluster: Cluster, match: string): Promise<string> {
  const one = cluster.node(1)
  const text = (await one.exec('ip', ['-o', '-4', 'addr', 'show', 'weft.1'])).stdout
  const own = /inet ([\d.]+)/.exec(text)?.[1] ?? assert.fail(text)
  const held =
    /^10\.244\.\d+\.0/.exec(wayTo(cluster, await answer(cluster, 1), 2).text)?.[0] ?? assert.fail('no address')
  await one.sh(`nft -f - <<'END'
    table netdev fault {
      chain egress {
        type filter hook egress device "eth0" priority 0
        ${match} udp dport 8472 @th,448,16 ${pseudoSum(own, held, 26)} counter drop
      }
    }
END`)
  return held
}

const dropped = async (host: Host) =>
  Number(/packets (\d+)/.exec((await host.exec('nft', ['list', 'table', 'netdev', 'fault'])).stdout)?.[1])

/** The condition of node 1. */
const cured = (cluster: Cluster): Promise<string> =>
  until(async () => /UNDERLAY_CHECKSUM.*/.exec(await conditions(cluster, 1))?.[0], {
    what: 'the condition',
    ...{ everyMs: 300, deadlineMs: 120_000 }
  })

// They mostly wait for answers that do not come: all at the same time.
describe('checksum offload', { skip, concurrency: true }, () => {
  test('translated packets alone are lost while checksums are offloaded: it is turned off, shown, kept, and they pass', async () => {
    await using cluster = await Cluster.start({
      args: ['--ip-masq'],
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
    })
    const [one, two] = [cluster.node(1), cluster.node(2)]
    await become(cluster, { '1 2': 'whole', '2 1': 'whole' })
    assert.ok(await offloads(one))
    const held = await breakOffload(cluster, 'meta mark 0x10a7')
    // What is translated of the tunnel's own packets, and all that have the mark.
    await one.sh(`nft -f - <<'END'
      table ip seen {
        chain after {
          type filter hook postrouting priority 200
          meta mark 0x10a7 udp dport 8472 counter
          meta mark 0x10a7 udp dport 8472 ct status snat counter
        }
      }
END`)
    const seen = async () =>
      [...(await one.exec('nft', ['list', 'table', 'ip', 'seen'])).stdout.matchAll(/packets (\d+)/g)].map(([, n]) =>
        Number(n)
      )
    cluster.announce('UNDERLAY_CHECKSUM')
    // It asks anew after a start.
    await cluster.daemon(1).restart()
    const said = await cured(cluster)
    assert.match(said, new RegExp(`${two.address} whose source port is translated were lost, and others were answered`))
    assert.match(said, /weftd has turned transmit checksum offload of weft\.1 off, and they are answered now/)
    assert.equal(await offloads(one), false)
    assert.equal(await dropped(one), 3)
    assert.deepEqual(await seen(), [4, 4])
    // A packet of somebody else with the same mark, of another protocol.
    await one.exec('ping', ['-c1', '-W1', '-m', '4263', held])
    assert.deepEqual(await seen(), [5, 4])

    const found = wayTo(cluster, await answer(cluster, 1), 2, 'translated')
    assert.deepEqual([found.verdict, found.cure], ['whole', undefined])
    assert.match(found.text, /with transmit checksum offload of weft\.1 turned off by weftd$/)
    const lines = async () => (await weftctl(one, ['changes'])).stdout
    assert.match(await lines(), / weftd +- +turned transmit checksum offload of weft\.1 off\n/)
    assert.equal((await weftctl(one, ['changes'])).code, 0)
    const why = (await weftctl(one, ['why', 'node', two.address])).stdout
    assert.match(why, / translated +10\.244\.\d+\.0 answers packets whose source port is translated, with /)

    // Another program turns it on: that is repaired and listed, like the device that is made again.
    await one.exec('ethtool', ['-K', 'weft.1', 'tx-checksum-ip-generic', 'on'])
    await until(
      async () => /changed back \(transmitChecksum\) transmit checksum offload of weft\.1 off/.exec(await lines()),
      {
        ...{ what: 'the repair', everyMs: 300 }
      }
    )
    assert.match(await lines(), /^unknown: the kernel does not say who changes settings of devices$/m)
    assert.equal(await offloads(one), false)
    await one.exec('ip', ['link', 'del', 'weft.1'])
    await until(async () => !(await offloads(one)), { what: 'the new device', everyMs: 300 })
    // A killed weftd knows what it turned off.
    await cluster.daemon(1).kill('SIGKILL')
    await cluster.daemon(1).restart()
    assert.match(await cured(cluster), /turned transmit checksum offload of weft\.1 off/)
    assert.equal(await offloads(one), false)
    // One that is killed before it knew whether that helps turns it on again, and asks anew.
    await cluster.daemon(1).kill('SIGKILL')
    await one.exec('nft', ['delete', 'table', 'netdev', 'fault'])
    const alias = 'checksum-offload-tried-off-by-weftd:translated 10.244.9.0-24'
    await one.exec('ip', ['link', 'set', 'weft.1', 'alias', alias])
    await cluster.daemon(1).restart()
    await until(() => offloads(one), { what: 'offload', everyMs: 300 })
    await become(cluster, { '1 2 translated': 'whole', '2 1 translated': 'whole', '1 2': 'whole', '2 1': 'whole' })
    assert.doesNotMatch((await one.exec('ip', ['link', 'show', 'weft.1'])).stdout, /alias/)
    // Nothing is lost by node 2.
    assert.ok(await offloads(two))
    assert.doesNotMatch(await conditions(cluster, 2), /UNDERLAY/)
  })

  test('all of UDP is lost while checksums are offloaded, on a node that has packets translated by others alone', async () => {
    await using cluster = await Cluster.start({
      network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
    })
    const [one, two] = [cluster.node(1), cluster.node(2)]
    await become(cluster, { '1 2': 'whole', '2 1': 'whole', '1 2 translated': 'not-asked' })
    assert.match(wayTo(cluster, await answer(cluster, 1), 2, 'translated').text, /its kernel tracks no connections$/)
    await breakOffload(cluster, 'meta l4proto udp')
    // What an administrator sets stays.
    await two.exec('ethtool', ['-K', 'weft.1', 'tx', 'off'])
    cluster.announce('UNDERLAY_CHECKSUM')
    // As kube-proxy would have it; and a packet.
    await one.sh(
      "nft 'add table ip others; add chain ip others nat { type nat hook postrouting priority 100; }; add rule ip others nat meta mark 0x4000 masquerade'"
    )
    await one.exec('ping', ['-c1', two.address])
    const said = await cured(cluster)
    assert.match(
      said,
      new RegExp(`UDP and TCP packets to the pods of ${two.address} were lost, and ICMP was answered;`)
    )
    assert.equal(await offloads(one), false)
    assert.equal(await dropped(one), 9)
    assert.equal(await offloads(two), false)
    assert.doesNotMatch(await conditions(cluster, 2), /UNDERLAY/)
  })

  test('an answer that does not quote the question is none: a pod may send it in the name of the peer', async () => {
    const helper = new URL('forged-answer.ts', import.meta.url).pathname
    const { stdout } = await run('unshare', ['-n', 'sh', '-c', `ip link set lo up && ${process.execPath} ${helper}`])
    assert.deepEqual(JSON.parse(stdout), {
      closed: [true, true],
      silent: false,
      data: false,
      forged: false,
      quoted: true
    })
  })
})
