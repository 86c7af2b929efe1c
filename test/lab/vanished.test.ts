// What goes without a DEL on a real node: namespaces that vanish while weftd runs, while it does not, and with the
// whole machine.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BIN, Cluster, linesOf, logged } from './cluster.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'
import { sample } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const RESERVATIONS = '/var/lib/cni/networks/lab'
const grace = (seconds: number) => ({ args: [`--vanished-grace=${seconds}`] })

const reserved = async (host: Host): Promise<readonly string[]> =>
  (await linesOf(host, 'sh', '-c', `ls ${RESERVATIONS} 2>/dev/null || true`)).filter((name) => /^[0-9.]+$/.test(name))

const freed = (metrics: string, reason: string) => sample(metrics, `weft_reservations_freed_total{reason="${reason}"}`)

describe('a namespace that vanishes', { skip }, () => {
  test('while weftd runs gives its address back after the grace, with a line and a count; others keep theirs', async () => {
    await using cluster = await Cluster.start({ hosts: [1], ...grace(1) })
    const [host, daemon] = [cluster.node(1), cluster.daemon(1)]
    const [stays, goes] = [await cluster.pod(host), await cluster.pod(host)]
    // Of a pod that somebody else has set up nothing is known but this.
    await host.sh(`printf 'foreign\\r\\neth0' > ${RESERVATIONS}/10.244.99.9`)
    await goes.pod[Symbol.asyncDispose]()
    await until(async () => !(await reserved(host)).includes(goes.address), {
      what: 'the address to be free'
    })
    assert.deepEqual((await reserved(host)).toSorted(), [stays.address, '10.244.99.9'].toSorted())
    await logged(daemon, ({ msg }) => /addresses are free again/.test(msg), 'the line that says so')
    const metrics = await daemon.metrics()
    assert.deepEqual([freed(metrics, 'vanished'), sample(metrics, 'weft_pods')], [1, 1])
    assert.equal(sample(metrics, 'weft_pods_vanished'), 0)
    assert.equal((await stays.pod.ping(host.address)).received, 1)
    const why = await host.sh(`${BIN}/../bin/weftctl why pod ${goes.id} || true`)
    assert.match(why.stdout, /its network namespace is gone, and no DEL was received for it/)
    // The DEL that comes after all finds nothing, which is no error.
    await cluster.call(host, 'DEL', goes.id, '')
  })

  test('while weftd is down is found at its start, also in a data directory of its own', async () => {
    await using cluster = await Cluster.start({ hosts: [1], ...grace(1) })
    const [host, daemon] = [cluster.node(1), cluster.daemon(1)]
    const [stays, goes] = [await cluster.pod(host), await cluster.pod(host)]
    const elsewhere = await cluster.pod(host, { name: 'other', ipam: { dataDir: '/run/elsewhere' } })
    const other = () => linesOf(host, 'sh', '-c', 'ls /run/elsewhere/other | grep ^10 || true')
    assert.deepEqual(await other(), [elsewhere.address])
    await until(async () => (await linesOf(host, 'cat', '/run/weft/pods.json')).join().includes(elsewhere.id), {
      what: 'the note of the last pod'
    })
    await daemon.kill('SIGKILL')
    for (const { pod } of [goes, elsewhere]) await pod[Symbol.asyncDispose]()
    daemon.launch()
    await daemon.ready()
    await until(async () => (await reserved(host)).length === 1 && (await other()).length === 0, {
      what: 'the addresses to be free'
    })
    assert.deepEqual(await reserved(host), [stays.address])
    assert.equal((await stays.pod.ping(host.address)).received, 1)
  })

  test('keeps its address for the grace, but not from a pod that would get none', async () => {
    const network = { Network: '10.244.0.0/24', SubnetLen: 29, Backend: { Type: 'vxlan' } }
    await using cluster = await Cluster.start({ hosts: [1], network, ...grace(3_600) })
    const [host, daemon] = [cluster.node(1), cluster.daemon(1)]
    const pods = []
    for (let n = 0; n < 5; n++) pods.push(await cluster.pod(host))
    const status = () => cluster.call(host, 'STATUS', '', '', {}, { check: false })
    assert.equal((await status()).error?.code, 50)
    const [goes, restarted] = pods
    assert.ok(goes && restarted)
    await goes.pod[Symbol.asyncDispose]()
    await until(async () => sample(await daemon.metrics(), 'weft_pods_vanished') === 1, {
      what: 'the pod to be missed'
    })
    assert.equal((await reserved(host)).length, 5)
    assert.equal((await status()).error, undefined)
    assert.equal((await cluster.pod(host)).address, goes.address)
    // As nerdctl and Nomad start a container again after a crash: without a DEL.
    const twice = { check: false }
    const refused = await cluster.call(host, 'ADD', restarted.id, (await host.pod('twice')).netns, {}, twice)
    assert.equal(refused.error?.code, 102, 'while its first namespace is there')
    await restarted.pod[Symbol.asyncDispose]()
    await until(async () => sample(await daemon.metrics(), 'weft_pods_vanished') === 1, {
      what: 'the second pod to be missed'
    })
    const again = await host.pod('again')
    const { result } = await cluster.call(host, 'ADD', restarted.id, again.netns)
    assert.match(JSON.stringify(result?.ips), new RegExp(`"${restarted.address.replaceAll('.', '\\.')}/`))
    assert.equal((await again.ping(host.address)).received, 1)
  })
})

describe('a reboot', { skip }, () => {
  test('frees what was reserved before it when weftd starts, without a call', async () => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const [host, daemon] = [cluster.node(1), cluster.daemon(1)]
    const goes = await cluster.pod(host)
    await daemon.stop()
    // As a reboot leaves it: no namespaces, no /run, the files of a boot with another id.
    await goes.pod[Symbol.asyncDispose]()
    await host.sh(
      `rm -rf /run/weft; printf other > /var/lib/cni/networks/.weft-boot/lab; touch -d '2001-01-01' ${RESERVATIONS}/${goes.address}`
    )
    await daemon.restart()
    await until(async () => (await reserved(host)).length === 0, { what: 'the address to be free' })
    assert.equal(freed(await daemon.metrics(), 'reboot'), 1)
    await logged(daemon, ({ msg }) => /before the last reboot are free again/.test(msg), 'the line that says so')
  })
})
