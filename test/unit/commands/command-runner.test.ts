// The commands of the network configuration: what they are given, their order, their faults, and what a restarted weftd
// makes of the notes.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { until } from '../until.ts'
import { CommandScene, leaseOf } from './runner-scene.ts'

const ADD = 'read data; echo "add $SUBNET $PUBLIC_IP $data" >>OUT'
const REMOVE = 'read data; echo "remove $SUBNET $PUBLIC_IP $data" >>OUT'
const SECOND = leaseOf('10.1.2.0/24', '192.0.2.2', 'aa bb')
const THIRD = leaseOf('10.1.3.0/24', '192.0.2.3')

/** Commands that write into a file of the scene. */
const into = (scene: CommandScene, keys: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(keys).map(([key, text]) => [key, text.replaceAll('OUT', join(scene.folder, 'out'))])
  )

const has = (scene: CommandScene, ...lines: readonly string[]) =>
  until(
    () => {
      assert.deepEqual(scene.lines(), lines)
      return true
    },
    `the lines ${lines.join(', ')}`
  )

const notes = (scene: CommandScene) => readdirSync(join(scene.folder, 'commands')).sort()

test('commands get flannel’s variables and input, in order: start, then each subnet once', async () => {
  await using scene = new CommandScene()
  scene.put(SECOND, THIRD, leaseOf('10.1.0.0/24', '192.0.2.1'))
  const printed = await scene.start(
    into(scene, {
      PreStartupCommand: 'echo "  aa bb"; echo warning >&2; echo "pre $SUBNET" >>OUT',
      PostStartupCommand: 'echo "post $NETWORK $SUBNET $PUBLIC_IP" >>OUT',
      SubnetAddCommand: ADD,
      SubnetRemoveCommand: REMOVE
    })
  )
  assert.equal(printed, 'aa bb')
  const added = [
    'pre ',
    'post 10.0.0.0/8 10.244.1.0/24 192.0.2.1',
    'add 10.1.2.0/24 192.0.2.2 aa bb',
    'add 10.1.3.0/24 192.0.2.3 '
  ]
  await has(scene, ...added)
  scene.put(SECOND)
  // A node whose address or data have changed.
  scene.put(leaseOf('10.1.2.0/24', '192.0.2.9', 'cc'))
  scene.gone('10.1.3.0-24')
  await has(
    scene,
    ...added,
    'remove 10.1.2.0/24 192.0.2.2 aa bb',
    'add 10.1.2.0/24 192.0.2.9 cc',
    'remove 10.1.3.0/24 192.0.2.3 '
  )
  await scene.settled()
  assert.deepEqual(notes(scene), ['10.1.2.0-24.json', 'start.json'])
})

test('a restarted weftd runs nothing twice, and removes what has gone once the store has listed everything', async () => {
  await using scene = new CommandScene()
  const keys = into(scene, { PreStartupCommand: 'echo x', SubnetAddCommand: ADD, SubnetRemoveCommand: REMOVE })
  scene.put(SECOND, THIRD)
  await scene.start(keys)
  const added = ['add 10.1.2.0/24 192.0.2.2 aa bb', 'add 10.1.3.0/24 192.0.2.3 ']
  await has(scene, ...added)
  await scene.settled()
  await scene.stop()
  scene.leases.clear()
  scene.trusts = false
  assert.equal(await scene.start({ ...keys, PreStartupCommand: 'echo x' }), 'x')
  scene.put(THIRD)
  // A third one shows that the others have been looked at.
  const fourth = leaseOf('10.1.4.0/24', '192.0.2.4')
  scene.put(fourth)
  await has(scene, ...added, 'add 10.1.4.0/24 192.0.2.4 ')
  await scene.settled()
  scene.trusts = true
  scene.ahead += 60_000
  scene.put(fourth)
  await has(scene, ...added, 'add 10.1.4.0/24 192.0.2.4 ', 'remove 10.1.2.0/24 192.0.2.2 aa bb')
})

test('a command that fails is a condition with its status and output, and is tried again; others go on', async () => {
  await using scene = new CommandScene()
  scene.put(SECOND, THIRD)
  await scene.start(
    into(scene, {
      SubnetAddCommand: `[ $SUBNET = 10.1.3.0/24 ] || [ -e OUT.ok ] || { printf 'no \\033[31mway' >&2; exit 3; }; ${ADD}`,
      SubnetRemoveCommand: REMOVE
    })
  )
  await has(scene, 'add 10.1.3.0/24 192.0.2.3 ')
  const detail = await until(() => scene.detail(), 'the condition')
  assert.match(
    detail,
    /Backend\.SubnetAddCommand \(.*\) for subnet 10\.1\.2\.0\/24 of 192\.0\.2\.2 ended with status 3, and said "no \\u001b\[31mway"$/
  )
  writeFileSync(join(scene.folder, 'out.ok'), '')
  scene.ahead += 60_000
  scene.put(THIRD)
  // What a failed command has done is removed before it is tried again.
  await has(
    scene,
    'add 10.1.3.0/24 192.0.2.3 ',
    'remove 10.1.2.0/24 192.0.2.2 aa bb',
    'add 10.1.2.0/24 192.0.2.2 aa bb'
  )
  await until(() => scene.detail() === undefined, 'the end of the condition')
})

test('a command that does not end is ended with what it started; what it leaves behind holds nobody up', async () => {
  await using scene = new CommandScene()
  const keys = into(scene, {
    SubnetAddCommand: 'case $SUBNET in 10.1.2.*) sleep 987654 & wait;; *) sleep 987653 & echo left $! >>OUT;; esac'
  })
  scene.put(SECOND, THIRD)
  await scene.start(keys, { deadlineMs: 300 })
  assert.match(await until(() => scene.detail(), 'the condition'), /10\.1\.2\.0\/24 .* did not end within 0\.3 s$/)
  const [line = ''] = await until(() => (scene.lines().length > 0 ? scene.lines() : undefined), 'the other one')
  await until(
    () => JSON.parse(readFileSync(join(scene.folder, 'commands/10.1.3.0-24.json'), 'utf8')).isSure,
    'its note'
  )
  process.kill(Number(line.replace('left ', '')), 'SIGKILL')
  const running = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && commandOf(pid).includes('987654'))
  assert.deepEqual(running, [])
})

const commandOf = (pid: string): string => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

test('a command during which weftd was killed is ended by the next one, which then undoes and repeats it', async () => {
  await using scene = new CommandScene()
  const mark = 'a-run-of-a-killed-weftd'
  const left = spawn('sleep', ['987652'], { env: { ...process.env, WEFT_COMMAND_RUN: mark }, detached: true })
  const ended = new Promise((resolve) => left.on('exit', (_, signal) => resolve(signal)))
  mkdirSync(join(scene.folder, 'commands'))
  const note = (name: string, value: object) =>
    writeFileSync(join(scene.folder, 'commands', name), JSON.stringify(value))
  note('running.json', { mark })
  const removed = {
    key: 'Backend.SubnetRemoveCommand',
    text: `${REMOVE.replaceAll('OUT', join(scene.folder, 'out'))}; exit 1`
  }
  const environment = { SUBNET: '10.1.2.0/24', PUBLIC_IP: '192.0.2.2' }
  note('10.1.2.0-24.json', { key: '10.1.2.0-24', environment, input: 'aa bb', removed, isSure: false })
  note('start.json', { before: '' })
  note('10.1.9.0-24.json', ['garbage'])
  scene.put(SECOND)
  await scene.start(into(scene, { SubnetAddCommand: ADD }))
  assert.equal(await ended, 'SIGKILL')
  await has(scene, 'remove 10.1.2.0/24 192.0.2.2 aa bb', 'add 10.1.2.0/24 192.0.2.2 aa bb')
  assert.equal(scene.detail(), undefined)
})

test('the command before the lease: its fault is an error, it is not repeated before its pause, and its size is limited', async () => {
  await using scene = new CommandScene()
  const fails = (keys: Record<string, string>) =>
    scene.start(keys).then(
      () => assert.fail('it succeeded'),
      (error) => {
        assert.ok(error instanceof WeftError)
        return error.message
      }
    )
  assert.match(
    await fails({ PreStartupCommand: 'echo gone; exit 7' }),
    /for this node ended with status 7, and said "gone"$/
  )
  assert.match(
    await fails({ PreStartupCommand: 'head -c 70000 /dev/zero' }),
    /printed 65536 bytes or more, more than the 16384/
  )
  assert.match(await fails({ PreStartupCommand: 'kill -9 $$' }), /was ended by SIGKILL$/)
  const keys = into(scene, { PreStartupCommand: 'echo try >>OUT; exit 1' })
  await fails(keys)
  const backend = { commands: { beforeLease: { key: 'it', text: keys.PreStartupCommand ?? '' }, input: () => '' } }
  await assert.rejects(scene.runner.beforeLease(backend as never), /status 1/)
  assert.deepEqual(scene.lines(), ['try'])
  scene.ahead += 1_100
  await assert.rejects(scene.runner.beforeLease(backend as never), /status 1/)
  assert.deepEqual(scene.lines(), ['try', 'try'])
})

test('another command before the lease undoes what the old configuration did, with its own commands', async () => {
  await using scene = new CommandScene()
  const old = { SubnetAddCommand: ADD, SubnetRemoveCommand: REMOVE, ShutdownCommand: 'echo "down $SUBNET" >>OUT' }
  scene.put(SECOND)
  await scene.start(into(scene, { PreStartupCommand: 'echo 1', ...old }))
  await has(scene, 'add 10.1.2.0/24 192.0.2.2 aa bb')
  await until(
    () =>
      notes(scene).includes('start.json') &&
      readFileSync(join(scene.folder, 'commands/start.json'), 'utf8').includes('down'),
    'the note'
  )
  await scene.settled()
  await scene.stop()
  await scene.start(into(scene, { PreStartupCommand: 'echo 2', SubnetAddCommand: 'echo new >>OUT' }))
  await has(scene, 'add 10.1.2.0/24 192.0.2.2 aa bb', 'remove 10.1.2.0/24 192.0.2.2 aa bb', 'down 10.244.1.0/24', 'new')
})

test('a running weftd that gets another backend undoes everything, and with the commands again it runs them', async () => {
  await using scene = new CommandScene()
  scene.put(SECOND)
  await scene.start(
    into(scene, { PreStartupCommand: 'echo pre >>OUT', SubnetAddCommand: ADD, SubnetRemoveCommand: REMOVE })
  )
  const [add, remove] = ['add 10.1.2.0/24 192.0.2.2 aa bb', 'remove 10.1.2.0/24 192.0.2.2 aa bb']
  await has(scene, 'pre', add)
  await scene.settled()
  const { place } = scene
  scene.runner.placed({ ...place, backend: registry(BACKENDS).configure('vxlan', {}) })
  scene.put(SECOND)
  await has(scene, 'pre', add, remove)
  await until(() => notes(scene).length === 0, 'no notes')
  scene.runner.placed(place)
  scene.put(SECOND)
  await has(scene, 'pre', add, remove, 'pre', add)
})

test('after the command at the end everything is run anew, and Weft leaves nothing behind', async () => {
  await using scene = new CommandScene()
  const keys = into(scene, {
    PreStartupCommand: 'echo pre >>OUT',
    SubnetAddCommand: ADD,
    SubnetRemoveCommand: REMOVE,
    ShutdownCommand: 'echo down >>OUT'
  })
  const [add, remove] = ['add 10.1.2.0/24 192.0.2.2 aa bb', 'remove 10.1.2.0/24 192.0.2.2 aa bb']
  scene.put(SECOND)
  await scene.start(keys)
  await has(scene, 'pre', add)
  await scene.settled()
  await scene.stop()
  await scene.runner.end()
  await has(scene, 'pre', add, 'down')
  await scene.start(keys)
  await has(scene, 'pre', add, 'down', 'pre', remove, add)
  await scene.settled()
  await scene.stop()
  await scene.runner.undo()
  await has(scene, 'pre', add, 'down', 'pre', remove, add, remove, 'down')
  assert.deepEqual(notes(scene), [])
})

test('weftd’s own variables are no command’s, and without permission nothing is run', async () => {
  await using scene = new CommandScene()
  const environment = {
    PATH: process.env.PATH,
    WEFTD_ETCD_PASSWORD: 'secret',
    FLANNELD_X: 'y',
    NOTIFY_SOCKET: '/z',
    NODE_NAME: 'n'
  }
  scene.put(SECOND)
  await scene.start(into(scene, { SubnetAddCommand: 'env >>OUT', SubnetRemoveCommand: REMOVE }), { environment })
  const lines = await until(() => (scene.lines().length > 0 ? scene.lines() : undefined), 'the variables')
  assert.ok(lines.includes('NODE_NAME=n'))
  assert.doesNotMatch(lines.join('\n'), /secret|FLANNELD|NOTIFY/)
  await scene.settled()
  await scene.stop()
  await scene.start({}, { permission: { commands: false, shell: true } })
  assert.match(
    await until(() => scene.detail(), 'the condition'),
    /SubnetRemoveCommand .* is not run without --allow-extension/
  )
  assert.ok(existsSync(join(scene.folder, 'commands/10.1.2.0-24.json')))
})

test('a lease whose data are no text, and that Peers has not looked at yet, ends neither a start nor weftd', async () => {
  await using scene = new CommandScene()
  scene.put(SECOND)
  const keys = into(scene, { SubnetAddCommand: ADD, SubnetRemoveCommand: REMOVE })
  await scene.start(keys)
  const [added, removed] = ['add 10.1.2.0/24 192.0.2.2 aa bb', 'remove 10.1.2.0/24 192.0.2.2 aa bb']
  await has(scene, added)
  await scene.settled()
  scene.leases.set('10.1.2.0-24', leaseOf('10.1.2.0/24', '192.0.2.2', { VtepMAC: 'x' }))
  scene.runner.placed(scene.place)
  await has(scene, added, removed)
  scene.put(SECOND)
  await has(scene, added, removed, added)
})
