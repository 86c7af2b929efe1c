// podman with its CNI back end and our executables: containers as `podman run` makes them, on two hosts.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Cluster } from '../lab/cluster.ts'
import { Podman, podmanList } from '../lab/podman.ts'
import { until } from '../lab/run.ts'
import { podTraces } from '../lab/traces.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

describe('podman', { skip, timeout: 600_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: Cluster
  let here: Podman
  let there: Podman

  before(
    async () => {
      cluster = up.use(await Cluster.start({ hosts: [2], args: ['--vanished-grace=1'] }))
      here = up.use(await Podman.start(cluster.node(1)))
      there = up.use(await Podman.start(cluster.node(2)))
    },
    { timeout: 240_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  /** Tells a story, after which both hosts must have no more of containers on them than before. */
  async function leavingNothing(story: () => Promise<void>): Promise<void> {
    const traces = () => Promise.all([here, there].map(({ host }) => podTraces(host)))
    const earlier = await traces()
    await story()
    assert.deepEqual(await traces(), earlier)
  }

  test('connects containers across hosts; removing them removes everything', () =>
    leavingNothing(async () => {
      await here.run('one')
      const address = await there.run('two')
      const ping = await here.podman(['exec', 'one', 'ping', '-c', '1', '-W', '5', address], { check: false })
      assert.equal(ping.code, 0, ping.stdout + ping.stderr)
      await here.remove('one')
      await there.remove('two')
    }))

  test("shows Weft's network, since every plugin of the list supports the list's version", async () => {
    const { stdout } = await here.podman(['network', 'ls', '--format', '{{.Name}} {{.Driver}}'])
    assert.match(stdout, /^lab weft$/m)
  })

  for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0']) {
    test(`accepts a list of version ${cniVersion}`, () =>
      leavingNothing(async () => {
        here.use({ ...podmanList, cniVersion })
        await here.run('version')
        await here.podman(['exec', 'version', 'ping', '-c', '1', '-W', '5', cluster.node(2).address])
        await here.remove('version')
        here.use(podmanList)
      }))
  }

  test('assigns the requested address and MAC; for an address in use the error names its container', () =>
    leavingNothing(async () => {
      const free = (await here.run('first')).replace(/\d+$/, '77')
      assert.equal(await here.run('static', [`--ip=${free}`, '--mac-address=02:11:22:33:44:55']), free)
      const { stdout } = await here.podman(['exec', 'static', 'ip', 'addr', 'show', 'eth0'])
      assert.match(stdout, /link\/ether 02:11:22:33:44:55 /)
      assert.match(stdout, new RegExp(`inet ${free.replaceAll('.', '\\.')}/`))
      const { stdout: id } = await here.podman(['inspect', '--format', '{{.Id}}', 'static'])
      const owner = new RegExp(`${free.replaceAll('.', '\\.')}.*${id.trim()}`)
      await assert.rejects(here.run('second', [`--ip=${free}`]), owner)
      for (const name of ['first', 'static', 'second']) await here.remove(name)
    }))

  test('keeps a container connected through restart, kill and start', () =>
    leavingNothing(async () => {
      await here.run('again')
      for (const words of [
        ['restart', '--time', '0', 'again'],
        ['kill', 'again'],
        ['start', 'again']
      ]) {
        await here.podman(words)
        if (words[0] === 'kill') await here.podman(['wait', 'again'])
        else await here.podman(['exec', 'again', 'ping', '-c', '1', '-W', '5', cluster.node(2).address])
      }
      await here.remove('again')
    }))

  test('calls no DEL for a container whose namespace was deleted; weftd frees the address without it', () =>
    leavingNothing(async () => {
      const address = await here.run('robbed')
      const { stdout } = await here.podman(['inspect', '--format', '{{.NetworkSettings.SandboxKey}}', 'robbed'])
      const netns = stdout.trim()
      assert.match(netns, /^\/run\/netns\//)
      await here.host.sh(`umount ${netns} && rm ${netns}`)
      await here.remove('robbed')
      await until(async () => (await here.host.sh(`! test -e /var/lib/cni/networks/lab/${address}`)).code === 0, {
        what: 'the address to be free',
        deadlineMs: 60_000
      })
      // libcni's cache is podman's own to forget.
      await here.host.sh('rm -f /var/lib/cni/results/lab-*')
      assert.equal(await here.run('heir', [`--ip=${address}`]), address)
      await here.remove('heir')
    }))

  test("passes on the plugin's error and cure while weftd is down; the next attempt after its restart succeeds", () =>
    leavingNothing(async () => {
      const daemon = cluster.daemon(1)
      await daemon.stop()
      await assert.rejects(
        here.run('early'),
        /weftd is not running on this node: there is no socket \/run\/weft\/weftd\.sock.*systemctl status weftd/s
      )
      await daemon.restart()
      await here.podman(['start', 'early'])
      await here.podman(['exec', 'early', 'ping', '-c', '1', '-W', '5', cluster.node(2).address])
      await here.remove('early')
    }))
})
