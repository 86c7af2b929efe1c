// A pool of addresses that is full (what belongs to pods that are gone is freed before anybody is refused, what may be
// another program's is not), and one that two networks share.

import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { hostName } from '../../daemon/attachment/identity.ts'
import { toCni } from '../../daemon/cni/result.ts'
import { add } from '../../daemon/pod/add.ts'
import { del } from '../../daemon/pod/del.ts'
import { rebuild } from '../../daemon/pod/recovery/rebuild.ts'
import { status } from '../../daemon/pod/status.ts'
import { linkNamed } from '../../daemon/state/object.ts'
import { ip as address, inOwnNamespace, run, skip } from './kernel-namespace.ts'
import { podPlace, rejectsWith, Sandbox, veths } from './pod-scene.ts'
import { until } from './run.ts'

inOwnNamespace()

describe('a full pool', { skip }, () => {
  /** A pod's namespace that goes without a DEL; resolves when its link has gone. */
  const lose = async (sandbox: Sandbox) => {
    sandbox[Symbol.dispose]()
    await until(() => veths().length === 0, { what: 'the link to go' })
  }

  test('gives the address of a pod whose namespace is gone, also after a restart of the daemon', async () => {
    for (const isRestarted of [false, true]) {
      await using place = await podPlace({ subnet: { 4: '10.244.1.0/30' } })
      const gone = new Sandbox()
      using second = new Sandbox()
      using third = new Sandbox()
      const attachment = (each: Sandbox) => each.attachment({ dataDir: place.dataDir })
      await add(place.context, attachment(gone))
      await lose(gone)
      await using later = isRestarted
        ? await podPlace({ subnet: { 4: '10.244.1.0/30' }, dataDir: place.dataDir })
        : undefined
      const { context } = later ?? place
      await until(() => linkNamed(context.host.observed, hostName(attachment(gone))) === undefined, {
        what: 'the daemon to see it'
      })
      await status(context, attachment(second))
      const result = await add(context, attachment(second))
      assert.equal(toCni(result).ips[0]?.address, '10.244.1.2/30')
      await rejectsWith(add(context, attachment(third)), 'POOL_EXHAUSTED', new RegExp(second.containerId.slice(0, 12)))
      await del(context, attachment(second))
    }
  })

  test('frees nothing that may be of another program’s pod', async () => {
    await using place = await podPlace({ subnet: { 4: '10.244.1.0/30' } })
    using pod = new Sandbox()
    const attachment = pod.attachment({ dataDir: place.dataDir })
    const { directory } = place.context.networks.reservations(place.dataDir, attachment.network)
    mkdirSync(directory, { recursive: true })
    writeFileSync(`${directory}/10.244.1.2`, 'flannels-pod\r\neth0')
    for (const command of [
      'link add cni0 type bridge',
      'addr add 10.244.1.1/30 dev cni0',
      'link add veth7777 type veth peer name peer7777',
      'link set veth7777 master cni0'
    ])
      run('ip', ...command.split(' '))
    await until(() => linkNamed(place.reconciler.observed, 'veth7777')?.master === 'cni0', { what: 'the stranger' })
    await rejectsWith(add(place.context, attachment), 'POOL_EXHAUSTED', /10\.244\.1\.2 flannels-pod eth0/)
    run('ip', 'link', 'del', 'veth7777')
    run('ip', 'link', 'del', 'cni0')
    await until(() => linkNamed(place.reconciler.observed, 'veth7777') === undefined, { what: 'the stranger to go' })
    await add(place.context, attachment)
    await del(place.context, attachment)
  })
})

test('two networks on the subnet of the node give no address twice: asked at once, after a restart, or asked for one; what a dead pod left does not count', {
  skip
}, async () => {
  await using place = await podPlace()
  const { context, dataDir } = place
  using first = new Sandbox()
  using second = new Sandbox()
  using third = new Sandbox()
  const [one, two] = [first.attachment({ dataDir }), second.attachment({ dataDir, network: 'renamed' })]
  const { directory } = context.networks.reservations(dataDir, 'forgotten')
  mkdirSync(directory, { recursive: true })
  writeFileSync(`${directory}/10.244.1.2`, 'nobody\r\neth0')
  await context.networks.reservations(dataDir, 'forgotten').list()
  const results = await Promise.all([add(context, one), add(context, two)])
  const addresses = results.map((each) => toCni(each).ips[0]?.address)
  assert.deepEqual(addresses.toSorted(), ['10.244.1.2/24', '10.244.1.3/24'])

  await using restarted = await podPlace({ dataDir })
  assert.equal(await rebuild(restarted.context, dataDir), 2)
  const ipam = { dataDir, ranges: [], routes: [] }
  const late = (requested: readonly string[]) =>
    third.attachment({ dataDir, network: 'third', ipam: { ...ipam, requested: requested.map(address) } })
  await rejectsWith(add(restarted.context, late(['10.244.1.2'])), 'ADDRESS_REFUSED', /another network has it/)
  assert.equal(toCni(await add(restarted.context, late([]))).ips[0]?.address, '10.244.1.4/24')
  for (const attachment of [one, two, late([])]) await del(restarted.context, attachment)
})
