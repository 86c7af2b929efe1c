// What is killed, full or read-only at any moment leaves nothing that DEL and GC do not take away, and nothing that
// keeps the next ADD from working.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Random } from '../fuzz/random.ts'
import { BIN } from '../lab/cluster.ts'
import { atMostOpen, descriptors, recordOf } from '../lab/host-record.ts'
import { settled, until } from '../lab/run.ts'
import type { Weftd } from '../lab/weftd.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'
import { addressIn, type Call, inParallel, isAsBefore, makePods, ok, start } from './many.ts'

const OPERATIONS = process.env.WEFT_LONG === '1' ? 1_000 : 200
const seed = process.env.WEFT_FUZZ_SEED ?? String(Date.now() % 1_000_000_007)
process.stdout.write(`WEFT_FUZZ_SEED=${seed}\n`)

/** Moments of an ADD at which it is killed. */
const POINTS = 20

const RESERVATIONS = '/var/lib/cni/networks/net1'

/** Makes the bridge, which stays, so that what comes later can be compared. */
async function warm(
  cni: CniHost
): Promise<{ readonly record: string; readonly files: { readonly pid: number; readonly open: number } }> {
  await makePods(cni.host, ['warm'])
  await ok(cni.host, { verb: 'ADD', id: 'warm' })
  await ok(cni.host, { verb: 'DEL', id: 'warm' })
  const { pid } = cni.cluster.daemon(1)
  return { record: await recordOf(cni.host, { networks: false }), files: { pid, open: await descriptors(pid) } }
}

/** How long an ADD takes now, in milliseconds: killing is spread over it. */
async function lengthOfAdd(cni: CniHost, call: Omit<Call, 'verb' | 'id'> = {}): Promise<number> {
  const begun = performance.now()
  await ok(cni.host, { ...call, verb: 'ADD', id: 'warm' })
  const took = performance.now() - begun
  await ok(cni.host, { ...call, verb: 'DEL', id: 'warm' })
  return took
}

describe('a kill', { skip }, () => {
  test('case 79: of the plugin at 20 points of an ADD: DEL succeeds, nothing is left, and the next ADD works', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const { record, files } = await warm(cni)
    let took = await lengthOfAdd(cni)
    await makePods(host, ['victim'])
    for (let [point, misses] = [0, 0]; point < POINTS; ) {
      const { child, ended } = start(host, { verb: 'ADD', id: 'victim' })
      await pause((took * point) / POINTS)
      child.kill('SIGKILL')
      if ((await ended).signal === 'SIGKILL') point++
      else {
        // It was quicker than the one that was measured, on a machine that had more to do then: the point is still to
        // come.
        took *= 0.9
        assert.ok(++misses < 10 * POINTS, `only ${point} of ${POINTS} were killed in time`)
      }
      await ok(host, { verb: 'DEL', id: 'victim' })
      await isAsBefore(host, record, files)
      await ok(host, { verb: 'ADD', id: 'victim' })
      await ok(host, { verb: 'DEL', id: 'victim' })
    }
    await isAsBefore(host, record, files)
  })

  test('case 79: of a third party that gives addresses, and of the plugin that waits for it', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const { files } = await warm(cni)
    await host.sh(`mkdir -p /run/third; cat > /run/third/slow <<'EOF'
#!/bin/sh
# Says its pid, waits as long as the file wait is there, and does what host-local does.
echo $$ > /run/third/pid
while [ "$CNI_COMMAND" = ADD ] && [ -e /run/third/wait ]; do sleep 0.01; done
exec ${BIN}/host-local
EOF
chmod +x /run/third/slow`)
    const call = {
      type: 'bridge',
      id: 'warm',
      config: { bridge: 'third0', isGateway: true, ipam: { type: 'slow', subnet: '10.30.0.0/24' } },
      path: `/run/third:${BIN}`
    } as const
    const other = await recordOf(host, { bridges: false, networks: false })
    for (const victim of ['plugin', 'third party'] as const) {
      await host.sh('touch /run/third/wait; rm -f /run/third/pid')
      const { child, ended } = start(host, { ...call, verb: 'ADD' })
      await until(async () => (await host.sh('cat /run/third/pid', { check: false })).stdout.trim(), {
        what: 'the third party to run'
      })
      if (victim === 'plugin') child.kill('SIGKILL')
      else await host.sh('kill -9 $(cat /run/third/pid)')
      const { signal, json } = await ended
      if (victim === 'plugin') assert.equal(signal, 'SIGKILL')
      else assert.match(`${json.msg} ${json.details}`, /slow/)
      await host.sh('rm /run/third/wait')
      await ok(host, { ...call, verb: 'DEL' })
      // A third party that outlives its caller may still reserve; the runtime's next DEL or GC frees it.
      await until(
        async () => (await host.sh('kill -0 $(cat /run/third/pid) 2>/dev/null', { check: false })).code !== 0,
        { what: 'the end of the third party' }
      )
      await ok(host, { ...call, verb: 'DEL' })
      assert.equal(await recordOf(host, { bridges: false, networks: false }), other)
    }
    await ok(host, { ...call, verb: 'ADD' })
    await ok(host, { ...call, verb: 'DEL' })
    await atMostOpen(files.pid, files.open)
  })

  test(`of plugins and of weftd at random moments of ${OPERATIONS} operations: after DEL and GC nothing is left`, {
    timeout: Math.max(580_000, OPERATIONS * 2_000)
  }, async (t) => {
    await using cni = await CniHost.start()
    const { host, cluster } = cni
    const { record } = await warm(cni)
    const daemon = cluster.daemon(1)
    const ids = Array.from({ length: 16 }, (_, at) => `pod${at}`)
    await makePods(host, ids)
    const storm = new Storm(cni, ids)
    await storm.run(daemon)
    t.diagnostic(`killed: ${storm.killedPlugins} plugins, weftd ${storm.killedDaemons} times`)
    assert.ok(storm.killedPlugins > 0 && storm.killedDaemons > 0, 'nothing was killed: the test shows nothing')
    await inParallel(ids.slice(0, 8), 4, (id) => ok(host, { verb: 'DEL', id }))
    // The rest is GC's: nothing is valid any more.
    await ok(host, { verb: 'GC', id: '', config: { 'cni.dev/valid-attachments': [] } })
    const { pid } = daemon
    await isAsBefore(host, record, { pid, open: await openAtRest(pid) })
    const prevResult = await ok(host, { verb: 'ADD', id: 'pod0' })
    await ok(host, { verb: 'CHECK', id: 'pod0', config: { prevResult } })
    await ok(host, { verb: 'DEL', id: 'pod0' })
    await isAsBefore(host, record, { pid, open: await openAtRest(pid) })
  })

  test('case 80: of the holder of the lock lets the next allocation go on, and garbage in the directory does no harm', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const config = { ipam: { ranges: [[{ subnet: '10.40.0.0/29' }]] } }
    await makePods(host, ['a', 'b', 'c', 'd'])
    const first = addressIn(await ok(host, { verb: 'ADD', id: 'a', config }))
    const holder = host.spawn('flock', [`${RESERVATIONS}/lock`, 'sleep', '600'])
    await until(
      async () => (await host.exec('flock', ['-n', `${RESERVATIONS}/lock`, 'true'], { check: false })).code !== 0,
      { what: 'the lock to be held' }
    )
    const waiting = start(host, { verb: 'ADD', id: 'b', config })
    const early = await Promise.race([waiting.ended, pause(300, 'still waiting')])
    assert.equal(early, 'still waiting')
    // flock(1) and its child both hold the lock; they are a process group of their own.
    process.kill(-holder.pid, 'SIGKILL')
    const second = addressIn((await waiting.ended).json)
    assert.notEqual(second, first)
    await host.sh(
      `cd ${RESERVATIONS}; printf '\\377garbage' > last_reserved_ip.0; : > 10.40.0.4; mkdir 10.40.0.5; echo note > README`
    )
    const third = addressIn(await ok(host, { verb: 'ADD', id: 'c', config }))
    assert.equal(new Set([first, second, third, '10.40.0.5']).size, 4)
    // All that is left is the file without an owner: its maker died, and before the pool is said to be exhausted it is
    // freed.
    assert.ok(![first, second, third].includes(addressIn(await ok(host, { verb: 'ADD', id: 'd', config }))))
    for (const id of ['a', 'b', 'c', 'd']) await ok(host, { verb: 'DEL', id, config })
    assert.deepEqual(await cni.reserved(), ['10.40.0.5'])
  })
})

/** Open files of a daemon that has nothing to do. */
const openAtRest = (pid: number): Promise<number> =>
  settled(() => descriptors(pid), { what: 'open files that no longer change', everyMs: 200 })

/** Operations on all pods at once while plugins and the daemon die. */
class Storm {
  killedPlugins = 0
  killedDaemons = 0
  readonly #cni: CniHost
  readonly #ids: readonly string[]
  readonly #random = new Random(`storm ${seed}`)
  /**
   * Successes that are still to come. What fails does not count: while weftd starts, sixteen runtimes would use up any
   * number of operations.
   */
  #left = OPERATIONS

  constructor(cni: CniHost, ids: readonly string[]) {
    this.#cni = cni
    this.#ids = ids
  }

  async run(daemon: Weftd): Promise<void> {
    const ended = { is: false }
    const killing = this.#killDaemon(daemon, ended)
    await Promise.all(this.#ids.map((id) => this.#operate(id)))
    ended.is = true
    await killing
  }

  /** One pod's life: ADD and DEL in turn, each perhaps killed. A runtime sends DEL again until it succeeds. */
  async #operate(id: string): Promise<void> {
    for (let verb: 'ADD' | 'DEL' = 'ADD'; this.#left > 0; ) {
      const running = start(this.#cni.host, { verb, id })
      if (this.#random.chance(0.3)) {
        await pause(this.#random.below(40))
        running.child.kill('SIGKILL')
      }
      const { exit, signal, json } = await running.ended
      if (signal === 'SIGKILL') this.killedPlugins++
      if (exit === 0) this.#left--
      else if (signal === null) {
        // A failure says why, in CNI's own form; a runtime waits before it tries again.
        assert.equal(typeof json.code, 'number')
        await pause(this.#random.between(20, 200))
      }
      verb = verb === 'ADD' || exit !== 0 ? 'DEL' : 'ADD'
    }
  }

  async #killDaemon(daemon: Weftd, ended: { readonly is: boolean }): Promise<void> {
    while (!ended.is) {
      await pause(this.#random.between(50, 1_500))
      await daemon.kill('SIGKILL')
      this.killedDaemons++
      daemon.launch()
      await daemon.ready()
    }
  }
}

describe('a state directory', { skip }, () => {
  /**
   * What every failure must keep: no link, no half reservation, a sentence with the path; and all works once the cause
   * is gone.
   */
  async function refusesAndRecovers(cni: CniHost, ids: readonly string[], cure: string): Promise<void> {
    const { host } = cni
    const links = await cni.links()
    for (const id of ids) {
      const { exit, json, stdout } = await start(host, { verb: 'ADD', id }).ended
      assert.deepEqual([exit, json.code], [1, 11], stdout)
      assert.match(String(json.msg), /\/var\/lib\/cni\/networks\/net1.*(ENOSPC|EROFS).*Cure: /)
    }
    assert.deepEqual(await cni.links(), links)
    assert.match((await cni.cluster.daemon(1).readyz()).body, /STATE_UNWRITABLE|can not be written/)
    await host.sh(cure)
    const results = await inParallel(ids, ids.length, (id) => ok(host, { verb: 'ADD', id }))
    assert.equal(new Set(results.flatMap(addressesOf)).size, ids.length)
    assert.doesNotMatch((await cni.cluster.daemon(1).readyz()).body, /STATE_UNWRITABLE|can not be written/)
    for (const id of ids) await ok(host, { verb: 'DEL', id })
  }

  test('that is full, of blocks or of files, makes ADD fail with the path, and nothing is half done', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    await warm(cni)
    await makePods(host, ['x', 'y'])
    await host.sh(`mount -t tmpfs -o size=64k tmpfs /var/lib/cni; mkdir -p ${RESERVATIONS}; : > ${RESERVATIONS}/lock`)
    await host.sh('cat /dev/zero > /var/lib/cni/fill || true', { check: false })
    await refusesAndRecovers(cni, ['x', 'y'], 'rm /var/lib/cni/fill')
    assert.deepEqual(await cni.reserved(), [])
    await host.sh(
      `umount /var/lib/cni; mount -t tmpfs -o nr_inodes=20 tmpfs /var/lib/cni; mkdir -p ${RESERVATIONS}; : > ${RESERVATIONS}/lock`
    )
    await host.sh('i=0; while : > /var/lib/cni/fill$i; do i=$((i+1)); done', { check: false })
    await refusesAndRecovers(cni, ['x', 'y'], 'rm /var/lib/cni/fill*')
    assert.deepEqual(await cni.reserved(), [])
  })

  test('that is read-only makes ADD and DEL fail with the path; DEL frees everything once it can', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const { record } = await warm(cni)
    await makePods(host, ['old', 'x', 'y'])
    await ok(host, { verb: 'ADD', id: 'old' })
    await host.sh('mount -o remount,ro /var/lib/cni')
    const { exit, json, stdout } = await start(host, { verb: 'DEL', id: 'old' }).ended
    assert.equal(exit, 1, stdout)
    assert.match(`${json.msg} ${json.details}`, /\/var\/lib\/cni\/networks\/net1.*EROFS/)
    await refusesAndRecovers(cni, ['x', 'y'], 'mount -o remount,rw /var/lib/cni')
    await ok(host, { verb: 'DEL', id: 'old' })
    assert.equal(await recordOf(host, { networks: false }), record)
  })
})
