// Two weftds would undo each other: the second is refused with the first's name, or takes over where the first ends.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Host } from './host.ts'
import { Lab } from './hosts.ts'
import { until } from './run.ts'
import { Weftd, weftdCommand } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const timeout = 300_000
const patient = { deadlineMs: 120_000 }

/** On a store of its own, so that nothing but the namespace is shared. */
const args = (n: number) => ['--store=embedded', `--embedded-path=/run/store${n}.db`, `--state-dir=/run/weft${n}`]

async function configured(host: Host): Promise<void> {
  for (const n of [1, 2])
    await host.exec(process.execPath, [
      ...['--input-type=module', '-e'],
      `import { EmbeddedFile } from '${new URL('../../daemon/stores/embedded/file.ts', import.meta.url)}'
       const file = new EmbeddedFile('/run/store${n}.db', () => undefined, console)
       file.configure('{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}')
       file[Symbol.dispose]()`
    ])
}

test('a second weftd in the namespace of the first is refused with its pid, whatever its state directory', {
  skip,
  timeout
}, async () => {
  await using lab = await Lab.start({ hosts: [1] })
  const [host] = lab.hosts
  assert.ok(host)
  await configured(host)
  await host.sh('cp /bin/sleep /run/flanneld; /run/flanneld 600 >/run/flanneld.log 2>&1 & echo $! >/run/flanneld.pid')
  const first = await Weftd.start(host, { args: args(1) })
  // Beside flanneld it serves, and says so with the pid.
  const { stdout: flanneld } = await host.sh('cat /run/flanneld.pid')
  assert.match((await first.readyz()).body, new RegExp(`FLANNELD_RUNNING.*pid ${flanneld.trim()}`))
  await host.sh('kill $(cat /run/flanneld.pid)')
  await until(async () => !(await first.readyz()).body.includes('FLANNELD'), { what: 'its end', ...patient })
  const second = await Weftd.start(host, { args: args(2), healthzPort: 8472, wait: false })
  assert.equal((await second.exited()).code, 1, second.text)
  assert.match(
    second.text,
    new RegExp(`DAEMON_RUNNING.*another weftd runs in this network namespace \\([\\w-]+, pid ${first.pidInside}\\)`)
  )
  assert.equal((await first.readyz()).status, 200)

  await host.sh('ip netns add elsewhere')
  const [command, ...rest] = weftdCommand()
  const elsewhere = await host.exec('ip', ['netns', 'exec', 'elsewhere', command, ...rest, ...args(1)], {
    check: false,
    timeoutMs: 120_000
  })
  assert.equal(elsewhere.code, 1, elsewhere.stderr)
  assert.match(elsewhere.stderr, new RegExp(`another weftd runs with /run/weft1 \\([\\w-]+, pid ${first.pidInside}\\)`))
  assert.equal((await first.readyz()).status, 200)
})

for (const [which, n] of [
  ['the same state directory', 1],
  ['another one', 2]
] as const) {
  test(`a weftd that starts while the old one still ends takes over, with ${which}`, { skip, timeout }, async () => {
    await using lab = await Lab.start({ hosts: [1] })
    const [host] = lab.hosts
    assert.ok(host)
    await configured(host)
    const old = await Weftd.start(host, { args: args(1) })
    const next = await Weftd.start(host, { args: args(n), healthzPort: 8472, wait: false })
    await until(() => next.log.some(({ msg }) => msg === 'weftd starts'), { what: 'the new one to begin', ...patient })
    assert.equal((await old.kill('SIGTERM')).code, 0)
    await next.ready(patient.deadlineMs)
  })
}

const USERS = {
  'somebody without our rights': ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
  root: []
}

test('a lock that another program holds keeps nobody from serving, and an open state directory is closed', {
  skip,
  timeout
}, async () => {
  await using lab = await Lab.start({ hosts: [1] })
  const [host] = lab.hosts
  assert.ok(host)
  await configured(host)
  await host.sh('mkdir -m 0777 /run/weft1')
  for (const [who, as] of Object.entries(USERS)) {
    const [command = '', ...words] = [...as, 'flock', '/proc/self/ns/net', 'sleep', '600']
    const squatter = host.spawn(command, words)
    await until(async () => (await host.sh('flock -n /proc/self/ns/net true', { check: false })).code !== 0, {
      what: 'the lock to be held',
      ...patient
    })
    const daemon = await Weftd.start(host, { args: args(1), deadlineMs: patient.deadlineMs })
    assert.ok(
      daemon.log.some(({ level, msg }) => level === 40 && msg.includes('continuing without it')),
      `${who}: ${daemon.text}`
    )
    assert.equal((await daemon.kill('SIGTERM')).code, 0)
    await squatter.stop()
  }
  assert.equal((await host.sh('stat -c %a /run/weft1')).stdout.trim(), '700')
})
