// Translated packets to peers: who is asked, what is said of the answers, when checksum offload is turned off, and when it
// is turned on again.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { parseNetConf } from '../../../daemon/config/net-conf.ts'
import { TRANSLATED_MARK } from '../../../daemon/firewall/translated-probe.ts'
import type { Lease } from '../../../daemon/lease/lease.ts'
import { put } from '../../../daemon/state/difference.ts'
import { type KernelObject, keyOf as keyOfObject, type Link, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { curedOf } from '../../../daemon/underlay/checksum-alias.ts'
import type { Verdict } from '../../../daemon/underlay/judge.ts'
import { findingText } from '../../../daemon/underlay/translated-text.ts'
import { TranslatedWays } from '../../../daemon/underlay/translated-ways.ts'
import { silent } from '../logs.ts'
import { testNode } from '../test-node.ts'
import { keyOf, leaseOf } from './probe-network.ts'

const DAY = 24 * 3_600_000
const DEVICE = 'weft.1'
const [TWO, THREE] = [keyOf(2), keyOf(3)]
const CHAIN = stateOf([
  { kind: 'nft-chain', family: 'inet', table: 'weft', chain: 'postrouting', rules: [], digests: [] }
])

type Question = { readonly to: number; readonly isTranslated: boolean; readonly isOn: boolean }

/** This node, and the kernel, in which `isOn` is the setting of its device. */
function scene({ keys = {}, masquerades = true, alias = '' } = {}) {
  const backend = registry(BACKENDS).configure('vxlan', keys)
  const node = testNode()
  const leases = new Map<string, Lease>([2, 3].map((n) => [keyOf(n), leaseOf(n)]))
  const device = backend.own(node).find((each): each is Link => each.kind === 'link') ?? assert.fail()
  const observed = new Map<string, KernelObject>([...(masquerades ? CHAIN : [])])
  const setAlias = (text: string) => observed.set(keyOfObject(device), { ...device, alias: text })
  setAlias(alias)
  const world = {
    now: 0,
    isOn: true,
    passes: (_question: Question): boolean => true,
    verdict: 'whole' as Verdict,
    tracked: 0,
    device: DEVICE,
    refuses: '' as KernelObject['kind'] | ''
  }
  const [asked, changes, wanted]: [Question[], string[], Map<string, readonly KernelObject[]>] = [[], [], new Map()]
  const conditions = new Map<string, string>()
  const start = () =>
    new TranslatedWays({
      prober: {
        look: () => ({
          judgement: { verdict: world.verdict, out: undefined, back: undefined },
          ...{ sinceMsAgo: 0, isNew: false, isHeard: true, isHeardWhole: true, dropsHere: false }
        }),
        routeTo: () => ({ device: world.device }) as never
      },
      peers: { leases, isOwn: () => false },
      reconciler: {
        observed: observed as never,
        want: async (owner, objects) => {
          wanted.set(owner, objects)
          return objects.map((object) => {
            if (world.refuses === object.kind) return { change: put(object), error: new Error('refused') }
            if (object.kind === 'offload') world.isOn = object.transmitChecksum
            if (object.kind === 'link') setAlias(object.alias ?? '')
            return { change: put(object) }
          })
        }
      },
      health: {
        raise: (code, detail, cure) => void conditions.set(code, `${detail} | ${cure ?? ''}`),
        clear: (code) => void conditions.delete(code)
      },
      place: () => ({ node, backend, conf: parseNetConf('{"Network":"10.244.0.0/16"}') }) as never,
      log: silent,
      ask: async ({ to, mark, port }) => {
        assert.equal(port, 9)
        const question = { to: to[2] ?? 0, isTranslated: mark === TRANSLATED_MARK, isOn: world.isOn }
        asked.push(question)
        world.now += 1_100
        return world.passes(question)
      },
      read: async () => world.isOn,
      changed: (text) => changes.push(text),
      tracked: () => world.tracked,
      now: () => world.now
    })
  const at = { ways: start() }
  /** Seconds of looks, a second apart. */
  const run = async (seconds: number) => {
    for (const until = world.now + seconds * 1_000; world.now < until; world.now += 1_000) await at.ways.step()
  }
  const restart = () => {
    at.ways = start()
  }
  const aliasNow = () => (observed.get(keyOfObject(device)) as Link).alias
  const condition = () => conditions.get('UNDERLAY_CHECKSUM')
  const finding = (key = TWO) => at.ways.finding(key, 4)
  return { world, asked, changes, wanted, leases, run, restart, condition, finding, aliasNow, setAlias }
}

const breaksTranslated = ({ isTranslated, isOn }: Question): boolean => !(isTranslated && isOn)
const breaksAll = ({ isOn }: Question): boolean => !isOn

test('each peer is asked three packets once a day while its way is whole', async () => {
  const { world, asked, run, finding, condition } = scene()
  world.verdict = 'lost'
  await run(60)
  assert.deepEqual([asked.length, finding()], [0, { is: 'not-asked', why: 'not-whole', device: DEVICE }])
  world.verdict = 'whole'
  await run(60)
  assert.deepEqual(
    asked.map(({ to, isTranslated }) => `${to} ${isTranslated}`).toSorted(),
    [2, 3].flatMap((n) => [`${n} false`, `${n} false`, `${n} true`])
  )
  assert.deepEqual([finding()?.is, finding(THREE)?.is, condition()], ['whole', 'whole', undefined])
  await run(600)
  assert.equal(asked.length, 6)
  world.now += DAY
  await run(60)
  assert.equal(asked.length, 12)
})

test('of a question that could not be put nothing is said, whatever the answer before was', async () => {
  const { world, run, finding } = scene()
  await run(60)
  assert.equal(finding()?.is, 'whole')
  world.now += DAY
  world.passes = () => {
    throw Object.assign(new Error('send: EPERM'), { errnoName: 'EPERM' })
  }
  await run(60)
  assert.deepEqual(finding(), { is: 'not-asked', why: 'not-due', device: DEVICE })
})

test('a packet that a busy node loses by chance is asked again soon, and not a day later', async () => {
  const { world, asked, run, finding } = scene()
  world.passes = () => asked.length > 1
  await run(90)
  assert.deepEqual([finding()?.is, finding(THREE)?.is], ['whole', 'whole'])
})

test('a question that could not be put is put again soon', async () => {
  const { world, run, finding } = scene()
  world.passes = () => {
    throw Object.assign(new Error('send: ENETUNREACH'), { errnoName: 'ENETUNREACH' })
  }
  await run(30)
  world.passes = () => true
  await run(90)
  assert.deepEqual([finding()?.is, finding(THREE)?.is], ['whole', 'whole'])
})

test('nobody is asked where this node translates nothing, where packets take no tunnel, and where the mark would travel', async () => {
  const untracked = scene({ masquerades: false })
  await untracked.run(60)
  assert.deepEqual([untracked.asked.length, untracked.wanted.size], [0, 0])
  const why = untracked.finding() ?? assert.fail()
  assert.deepEqual(why, { is: 'not-asked', why: 'untracked', device: DEVICE })
  const facts = { peer: 'two', asked: '10.244.2.0', port: 9 }
  assert.match(findingText(why, facts).text, /^not asked: this node translates no packets/)
  // Another program's rules.
  untracked.world.tracked = 3
  await untracked.run(60)
  assert.equal(untracked.finding()?.is, 'whole')

  const refused = scene()
  refused.world.refuses = 'nft-chain'
  await refused.run(60)
  assert.deepEqual([refused.asked.length, refused.wanted.get('translated packets')], [0, []])
  assert.match(findingText(refused.finding() ?? assert.fail(), facts).text, /^not asked: the kernel refuses the rule/)

  const plain = scene()
  plain.world.device = 'eth0'
  await plain.run(60)
  const found = plain.finding() ?? assert.fail()
  assert.match(findingText(found, facts).text, /^not asked: packets of pods leave by eth0 without a tunnel$/)
  const gbp = scene({ keys: { GBP: true } })
  await gbp.run(60)
  assert.deepEqual([plain.asked.length, gbp.asked.length, gbp.finding(), gbp.wanted.size], [0, 0, undefined, 0])
})

test('what is lost with offload alone: it is turned off, with the alias that says so, before anybody is asked by it', async () => {
  const { world, run, aliasNow, changes, condition, finding, wanted } = scene()
  const seen = new Set<string>()
  world.passes = (question) => {
    if (!question.isOn) seen.add(aliasNow() ?? '')
    return breaksTranslated(question)
  }
  await run(60)
  assert.match([...seen][0] ?? '', /^checksum-offload-tried-off-by-weftd:translated 10\.64\.[23]\.0-24$/)
  assert.deepEqual([world.isOn, curedOf(aliasNow())?.isProven], [false, true])
  assert.deepEqual(changes, [`turned transmit checksum offload of ${DEVICE} off`])
  assert.match(
    condition() ?? '',
    /translated were lost, .* turned transmit checksum offload of weft\.1 off.*\| no action/
  )
  assert.deepEqual([finding()?.is, finding(THREE)?.is], ['whole', 'whole'])
  assert.deepEqual(wanted.get(`checksum offload of ${DEVICE}`)?.map(textOf), [
    textOf({ kind: 'link', name: DEVICE, alias: aliasNow() ?? '' }),
    `transmit checksum offload of ${DEVICE} off`
  ])
})

test('once a day it is tried with offload, less often each time that fails, and stays on once packets pass', async () => {
  const { world, asked, run, changes, condition, aliasNow } = scene()
  world.passes = breaksTranslated
  await run(60)
  const withOffload = () => asked.filter(({ isOn, isTranslated }) => isOn && isTranslated).length
  const tries = []
  for (let day = 1; day <= 8; day++) {
    const before = withOffload()
    world.now += DAY
    await run(60)
    assert.equal(world.isOn, false)
    tries.push(withOffload() - before)
  }
  // One packet each: after 1, 2 and 4 days.
  assert.deepEqual(tries, [1, 0, 1, 0, 0, 0, 1, 0])
  assert.match(condition() ?? '', /turned transmit checksum offload/)
  world.passes = () => true
  world.now += 8 * DAY
  await run(60)
  assert.deepEqual([world.isOn, aliasNow(), condition()], [true, '', undefined])
  assert.equal(changes.at(-1), `turned transmit checksum offload of ${DEVICE} on again`)
  // It does not flap: the next one waits twice as long as the last.
  world.passes = breaksTranslated
  world.now += DAY
  await run(60)
  assert.equal(world.isOn, false)
  world.passes = () => true
  world.now += 15 * DAY
  await run(60)
  assert.equal(world.isOn, false)
  world.now += DAY
  await run(60)
  assert.deepEqual([world.isOn, changes.length], [true, 4])
})

test('while the peer answers nothing at all, offload is not tried; when the question fails it is off again', async () => {
  const { world, run } = scene()
  world.passes = breaksTranslated
  await run(60)
  world.passes = ({ isOn }) => {
    assert.equal(isOn, false)
    return false
  }
  world.now += DAY
  await run(60)
  world.passes = ({ isOn }) => {
    if (isOn) throw new Error('EPERM')
    return true
  }
  world.now += 2 * DAY
  await run(60)
  assert.equal(world.isOn, false)
})

test('all but ICMP is lost with offload: it is turned off; where that is not the cause it is on again, and tried once a day', async () => {
  const cured = scene()
  cured.world.passes = breaksAll
  await cured.run(60)
  assert.equal(cured.world.isOn, false)
  assert.match(
    cured.condition() ?? '',
    /^UDP and TCP packets to the pods of .* were lost, and ICMP was answered; weftd has/
  )

  const dropped = scene()
  dropped.world.passes = () => false
  await dropped.run(600)
  assert.deepEqual([dropped.world.isOn, dropped.condition(), dropped.changes], [true, undefined, []])
  assert.equal(dropped.asked.filter(({ isOn }) => !isOn).length, 1)
  assert.deepEqual([dropped.finding()?.is, dropped.aliasNow()], ['silent', ''])
  dropped.world.now += DAY
  await dropped.run(600)
  assert.equal(dropped.asked.filter(({ isOn }) => !isOn).length, 2)
})

test('lost with and without offload: it is on again, and the condition is about the interface, until the peer answers or is gone', async () => {
  const { world, run, condition, leases, changes, finding } = scene()
  world.passes = ({ isTranslated, to }) => !isTranslated || to === 3
  await run(60)
  assert.deepEqual([world.isOn, finding()?.is, finding(THREE)?.is, changes], [true, 'lost', 'whole', []])
  assert.match(
    condition() ?? '',
    /is off, or makes no difference \| turn transmit checksum offload off on the interface .*; then restart weftd$/
  )
  world.device = 'eth0'
  await run(10)
  assert.equal(condition(), undefined, 'of a plain route')
  world.device = DEVICE
  world.now += DAY
  await run(60)
  assert.match(condition() ?? '', /makes no difference/)
  leases.delete(TWO)
  await run(10)
  assert.equal(condition(), undefined)
})

test('what an administrator has turned off stays, and so does his alias; what the kernel refuses is no cure', async () => {
  const off = scene()
  Object.assign(off.world, { isOn: false, passes: ({ isTranslated }: Question) => !isTranslated })
  await off.run(60)
  assert.deepEqual([off.world.isOn, off.changes], [false, []])
  assert.match(off.condition() ?? '', /is off, or makes no difference/)

  const named = scene({ alias: 'uplink of rack 7' })
  named.world.passes = breaksTranslated
  await named.run(60)
  assert.deepEqual([named.world.isOn, named.aliasNow()], [false, 'uplink of rack 7'])

  const refused = scene()
  Object.assign(refused.world, { refuses: 'offload', passes: breaksTranslated })
  await refused.run(60)
  assert.deepEqual([refused.world.isOn, refused.changes], [true, []])
})

test('a restarted weftd keeps what helped, and turns on what it was stopped before it knew', async () => {
  const { world, run, restart, condition, aliasNow, setAlias } = scene()
  world.passes = breaksTranslated
  await run(60)
  // The device is as the earlier weftd left it, in the middle of a try.
  world.isOn = true
  restart()
  await run(1)
  assert.equal(world.isOn, false)
  assert.match(condition() ?? '', /turned transmit checksum offload of weft\.1 off/)
  setAlias(`checksum-offload-tried-off-by-weftd:all ${TWO}`)
  restart()
  world.verdict = 'lost'
  await run(1)
  assert.deepEqual([world.isOn, aliasNow(), condition()], [true, '', undefined])
})
