// Single inputs that fuzzing and thinking about it found, each with what weftd must make of it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cluster, linesOf } from '../lab/cluster.ts'
import type { Host } from '../lab/host.ts'
import { checkError } from './answer.ts'
import { lineOf, sendTo } from './connection.ts'

const skip = process.getuid?.() === 0 ? false : 'weftd and its namespaces need root'

type Asked = { readonly env?: Readonly<Record<string, string>>; readonly config?: object; readonly deadlineMs?: number }

/** One call of the weft plugin on the socket: its exit status and what it prints. */
async function ask(host: Host, asked: Asked): Promise<{ readonly exit: number; readonly stdout: string }> {
  const env = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'found',
    CNI_NETNS: '/run/netns/found',
    CNI_IFNAME: 'eth0',
    ...asked.env
  }
  const stdin = JSON.stringify({ cniVersion: '1.1.0', name: 'found', type: 'weft', ...asked.config })
  const line = lineOf({ env, stdin }, 'weft', asked.deadlineMs ?? 60_000)
  const answer = await sendTo(host.path('/run/weft/weftd.sock'), { pieces: [line, '\n'], last: 'wait' }, 15_000)
  return JSON.parse(answer ?? '{}') as { exit: number; stdout: string }
}

async function place(): Promise<Cluster> {
  const cluster = await Cluster.start({ hosts: [1] })
  await cluster.node(1).pod('found')
  return cluster
}

const links = (host: Host) => linesOf(host, 'sh', '-c', "ip -o link | sed 's/^[0-9]*: //; s/[:@].*//'")

describe('weftd', { skip }, () => {
  test('refuses a data directory in /proc, where no directory can be made', async () => {
    await using cluster = await place()
    const { exit, stdout } = await ask(cluster.node(1), { config: { ipam: { dataDir: '/proc/weft' } } })
    assert.equal(exit, 1)
    assert.equal(checkError(stdout, 'ADD').code, 11)
  })

  test('refuses a FIFO as a namespace at once', async () => {
    await using cluster = await place()
    const host = cluster.node(1)
    await host.exec('mkfifo', ['/run/fifo'])
    const { exit, stdout } = await ask(host, { env: { CNI_NETNS: '/run/fifo' } })
    assert.equal(exit, 1)
    assert.match(checkError(stdout, 'ADD').msg, /\/run\/fifo/)
  })

  test('lets a caller wait as long as it likes', async () => {
    await using cluster = await place()
    const { exit, stdout } = await ask(cluster.node(1), { deadlineMs: Number.MAX_SAFE_INTEGER })
    assert.equal(exit, 0, stdout)
  })

  test('takes no pattern of the kernel for an interface name, and makes no link of one', async () => {
    await using cluster = await place()
    const host = cluster.node(1)
    const before = await links(host)
    for (const asked of [{ env: { CNI_IFNAME: 'eth%d' } }, { config: { bridge: 'br%d', mode: 'bridge' } }]) {
      const { exit, stdout } = await ask(host, asked)
      assert.equal(exit, 1)
      assert.ok([4, 7].includes(checkError(stdout, 'ADD').code), stdout)
    }
    const { exit } = await ask(host, { env: { CNI_IFNAME: 'eth0\u0000x' } })
    assert.equal(exit, 1)
    assert.deepEqual(await links(host), before)
  })

  test('does not go on wishing for the bridge of an ADD that failed', async () => {
    await using cluster = await place()
    const host = cluster.node(1)
    // No link has a multicast address: the kernel refuses the gateway's.
    const ipam = { ranges: [[{ subnet: 'ff0e:77::/64' }]] }
    const { exit, stdout } = await ask(host, { config: { bridge: 'found0', mode: 'bridge', ipam } })
    assert.equal(exit, 1, stdout)
    const answer = await sendTo(host.path('/run/weft/weftd.sock'), { pieces: ['{"v":1,"ctl":"diff"}\n'], last: 'wait' })
    assert.deepEqual(JSON.parse(answer ?? '').answer, { changes: [] })
  })
})
