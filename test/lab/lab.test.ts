// The lab itself: hosts reach each other as wired, cables can be cut, real etcd runs inside, and nothing is left
// whatever happens.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Etcd } from './etcd.ts'
import { Lab } from './hosts.ts'
import { Background, until } from './run.ts'
import { deadLabs, firstProcessOf, labs, leftoversOf, removeLab } from './sweep.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const deadOwner = fileURLToPath(new URL('dead-owner.ts', import.meta.url))

test('hosts of one segment and hosts behind the router reach each other in both families', { skip }, async () => {
  await using lab = await Lab.start({ hosts: [2, 1], ipv6: true })
  const [h1, h2, h3] = [lab.host(1), lab.host(2), lab.host('h3')]
  for (const [from, to, ttl] of [
    [h1, h2, 64],
    [h1, h3, 63],
    [h3, h2, 63]
  ] as const) {
    for (const address of [to.address, String(to.address6)]) {
      const answer = await from.ping(address)
      assert.equal(answer.received, 1, answer.text)
      assert.match(answer.text, new RegExp(`ttl=${ttl} `))
    }
  }
})

test('a host has a name, a /run, a /proc/sys and CNI directories of its own, and the control groups of the machine', {
  skip
}, async () => {
  await using lab = await Lab.start({ hosts: [2] })
  const [h1, h2] = [lab.host(1), lab.host(2)]
  await h1.sh(
    'echo one > /run/mark; echo 1 > /proc/sys/net/ipv4/ip_forward; echo c > /etc/cni/net.d/c; echo v > /var/lib/cni/v'
  )
  assert.equal(readFileSync(h1.path('/run/mark'), 'utf8'), 'one\n')
  const { stdout } = await h2.sh(
    'hostname; ls /run/mark /etc/cni/net.d/c /var/lib/cni/v 2>/dev/null || true; cat /proc/sys/net/ipv4/ip_forward'
  )
  assert.equal(stdout, 'h2\n0\n')
  const [inside, outside] = [await h1.exec('ls', ['/sys/fs/cgroup']), readFileSync('/proc/self/mountinfo', 'utf8')]
  assert.equal(inside.stdout !== '', outside.includes('/sys/fs/cgroup'))
})

test('a cut cable loses every packet until it is restored, with or without the carrier', { skip }, async () => {
  await using lab = await Lab.start({ hosts: [2] })
  const [h1, h2] = [lab.host(1), lab.host(2)]
  for (const silently of [false, true]) {
    const during = await h1.pingDuring(h2.address, async () => {
      await h2.cut({ silently })
      const carrier =
        (await h2.exec('cat', ['/proc/net/dev'])).stdout.includes('eth0') &&
        (await h2.sh('ip -o link show eth0')).stdout
      assert.equal(String(carrier).includes('NO-CARRIER'), !silently)
      assert.equal((await h1.ping(h2.address)).received, 0)
      await h2.restore()
    })
    assert.equal(during.sent, during.received + during.lost.length)
    assert.ok(during.lost.length > 0, 'nothing was lost')
    assert.ok(during.longestGapMs > 0)
  }
  const quiet = await h1.pingDuring(h2.address, async () => 'done')
  assert.deepEqual([quiet.lost, quiet.value], [[], 'done'])
})

test('an eth0 made again has another index and the same address', { skip }, async () => {
  await using lab = await Lab.start({ hosts: [1, 1] })
  const [h1, h2] = [lab.host(1), lab.host(2)]
  const index = async () => ((await h1.ip('link', 'show', 'eth0'))[0] as { readonly ifindex: number }).ifindex
  const before = await index()
  await h1.replug()
  assert.notEqual(await index(), before)
  await until(async () => (await h1.ping(h2.address)).received === 1, { what: 'an answer over the new eth0' })
})

test('MTU and address of a host are as asked, and can be changed', { skip }, async () => {
  await using lab = await Lab.start({ hosts: [{ mtu: 1400 }, { address: '192.168.10.200', name: 'fixed' }], mtu: 9000 })
  const mtu = async (which: number) =>
    ((await lab.host(which).ip('link', 'show', 'eth0'))[0] as { readonly mtu: number }).mtu
  assert.deepEqual([await mtu(1), await mtu(2)], [1400, 9000])
  assert.equal((await lab.host(1).ping('192.168.10.200')).received, 1)
  await lab.host('fixed').setMtu(1300)
  assert.equal(await mtu(2), 1300)
})

test('a pod is an empty namespace with lo down, valid at /run/netns inside its host only', { skip }, async () => {
  await using lab = await Lab.start({ hosts: [2] })
  const pod = await lab.host(1).pod('p1')
  const links = (await pod.ip('link')) as readonly { readonly ifname: string; readonly operstate: string }[]
  assert.deepEqual(
    links.map(({ ifname, operstate }) => [ifname, operstate]),
    [['lo', 'DOWN']]
  )
  const look = (which: number) => lab.host(which).exec('nsenter', [`--net=${pod.netns}`, 'true'], { check: false })
  assert.deepEqual([(await look(1)).code, (await look(2)).code === 0], [0, false])
  await pod[Symbol.asyncDispose]()
  assert.notEqual((await look(1)).code, 0)
})

test('etcd with one member takes writes, loses its watch history by compaction, survives a restart and forgets when emptied', {
  skip
}, async () => {
  await using lab = await Lab.start({ hosts: [1] })
  const etcd = await Etcd.start(lab)
  await etcd.put('/a', '-1 {"x": 1}')
  await etcd.compact()
  const old = await etcd.ctl(['get', '/a', '--rev', '1'], { check: false })
  assert.match(old.stderr, /compacted/)
  await etcd.restart()
  assert.deepEqual([...(await etcd.list('/'))], [['/a', '-1 {"x": 1}']])
  await etcd.restart({ empty: true })
  assert.equal((await etcd.list('/')).size, 0)
})

test('etcd with three members, TLS and users goes on when one member is killed, and refuses strangers', {
  skip
}, async () => {
  await using lab = await Lab.start({ hosts: [1] })
  const etcd = await Etcd.start(lab, { members: 3, tls: true, auth: { password: 'secret' } })
  await etcd.members[0]?.stop('SIGKILL')
  await until(() => etcd.put('k', 'v').then(() => true), {
    what: 'a write with two of three members'
  })
  assert.equal((await etcd.list('k')).get('k'), 'v')
  const { ca = '', cert = '', key = '' } = etcd.certificates ?? {}
  const env = { ETCDCTL_API: '3' }
  const stranger = ['--endpoints', String(etcd.endpoints[1]), '--cacert', ca, '--dial-timeout', '1s', 'get', 'k']
  assert.notEqual((await lab.host(1).exec('etcdctl', stranger, { env, check: false })).code, 0)
  const nobody = ['--endpoints', String(etcd.endpoints[1]), '--cacert', ca, '--cert', cert, '--key', key, 'get', 'k']
  assert.match(
    (await lab.host(1).exec('etcdctl', nobody, { env, check: false })).stderr,
    /user name is empty|permission denied/
  )
})

test('a lab leaves nothing: programs that ignore SIGTERM, drop their environment or daemonize end too', {
  skip
}, async () => {
  const lab = await Lab.start({ hosts: [1] })
  const host = lab.host(1)
  await host.pod('p')
  const stubborn = host.spawn('sh', ['-c', "trap '' TERM; echo up; while :; do sleep 1; done"])
  const forgetful = host.spawn('env', ['-i', 'setsid', 'tail', '-f', '/dev/null'])
  const { stdout } = await host.sh(
    'setsid -f unshare --net sleep 1000 > /dev/null 2>&1 < /dev/null; until pgrep -nx sleep; do :; done'
  )
  const daemon = Number(stdout)
  assert.ok(daemon > 1 && existsSync(host.path(`/proc/${daemon}/stat`)))
  const directory = host.path('/proc')
  await until(() => stubborn.text().includes('up'), { what: 'the stubborn program' })
  assert.ok(lab.leftovers().some((line) => line.includes('processes')))
  await lab[Symbol.asyncDispose]()
  assert.deepEqual(lab.leftovers(), [])
  assert.deepEqual([stubborn.ended?.signal, forgetful.ended !== undefined], ['SIGKILL', true])
  assert.ok(!existsSync(directory))
})

test('no process outside a lab ends with it, in whatever namespace it is', { skip }, async () => {
  const lab = await Lab.start({ hosts: [1] })
  const outside = new Background('guest', 'nsenter', ['-t', String(lab.host(1).pid), '-n', '-m', 'sleep', '1000'], {
    logPath: '/dev/null'
  })
  await using _guest = outside
  await until(() => readFileSync(`/proc/${outside.pid}/comm`, 'utf8') === 'sleep\n', { what: 'the guest' })
  await lab[Symbol.asyncDispose]()
  assert.equal(outside.ended, undefined)
  assert.doesNotMatch(readFileSync(`/proc/${outside.pid}/stat`, 'utf8'), / Z /)
})

test('a lab that cannot be completed leaves nothing', { skip }, async () => {
  const before = new Set(labs())
  await assert.rejects(Lab.start({ hosts: [{ address: 'nonsense' }] }), /nonsense/)
  assert.deepEqual(
    labs().filter((name) => !before.has(name)),
    []
  )
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`a lab ends with its owner on ${signal}`, { skip }, async () => {
    const { name, end } = await startOwner()
    await end(signal)
    await until(() => leftoversOf(name).length === 0, { what: `nothing of ${name}` })
  })
}

test('a lab ends with an owner killed by SIGKILL, the next one removes its files, and a lab that was kept stays', {
  skip
}, async () => {
  const kept = await startOwner('keep')
  await kept.end('SIGKILL')
  // Another test run on this machine may be the next one, and remove it first.
  const left = async () => {
    const killed = await startOwner()
    await killed.end('SIGKILL')
    await until(() => firstProcessOf(killed.name) === undefined, { what: 'the end of its processes' })
    return deadLabs().includes(killed.name) && killed
  }
  const killed = await until(left, { what: 'a dead lab that is there to be removed', deadlineMs: 120_000 })
  {
    await using _lab = await Lab.start({ hosts: [1] })
    assert.deepEqual(leftoversOf(killed.name), [])
    assert.ok(firstProcessOf(kept.name) !== undefined)
  }
  removeLab(kept.name)
  assert.deepEqual(leftoversOf(kept.name), [])
})

/** Another process with a lab of its own; resolves when that is up. */
async function startOwner(...args: readonly string[]) {
  const child = spawn(process.execPath, [deadOwner, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more
  })
  const gone = new Promise<void>((resolve) => child.on('exit', () => resolve()))
  const named = until(() => /^up (\S+)$/m.exec(text)?.[1], { what: 'the lab of another process' })
  const name = await named.catch((error: unknown) => {
    child.kill('SIGTERM')
    throw error
  })
  return {
    name,
    end: (signal: NodeJS.Signals) => {
      child.kill(signal)
      return gone
    }
  }
}
