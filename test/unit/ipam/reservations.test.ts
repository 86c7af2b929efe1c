// Reservations on a real directory: host-local's layout to the byte, crashes, reboots, foreign files, many at once.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it, mock } from 'node:test'
import { promisify } from 'node:util'
import { flock } from '../../../daemon/os/flock.ts'
import { formatIp, type Ip, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { rangeSets } from '../../../ipam/pool.ts'
import { type Owner, Reservations, type Reserving } from '../../../ipam/reservations.ts'

const ip = (text: string): Ip => parseIp(text) ?? assert.fail(text)
const sets = (...subnets: readonly string[]) =>
  rangeSets(subnets.map((subnet) => [{ subnet: parsePrefix(subnet) ?? assert.fail(subnet) }]))
const small = sets('10.20.0.0/29')
const owner = (containerId: string, ifname = 'eth0'): Owner => ({ containerId, ifname })
const addressesOf = (answer: Reserving) =>
  answer.kind === 'reserved' ? answer.addresses.map(({ prefix }) => formatIp(prefix.ip)) : answer

let base = ''
const directory = () => join(base, 'net1')
const open = (boot = { id: 'boot-1', since: 0 }) => new Reservations(base, 'net1', { lock: flock, boot })
const files = () => readdirSync(directory()).sort()

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'weft-reservations-'))
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

describe('a reservation', () => {
  it("is host-local's file to the byte, beside the last address and the lock", async () => {
    assert.deepEqual(addressesOf(await open().reserve(owner('cid'), small)), ['10.20.0.2'])
    assert.equal(readFileSync(join(directory(), '10.20.0.2'), 'utf8'), 'cid\r\neth0')
    assert.equal(statSync(join(directory(), '10.20.0.2')).mode & 0o777, 0o600)
    assert.equal(statSync(join(directory(), '10.20.0.2')).nlink, 1)
    assert.equal(readFileSync(join(directory(), 'last_reserved_ip.0'), 'utf8'), '10.20.0.2')
    assert.deepEqual(files(), ['10.20.0.2', 'last_reserved_ip.0', 'lock'])
  })

  it('that is rewritten in place is the one of whom it names now', async () => {
    const reservations = open()
    await reservations.reserve(owner('a'), small)
    assert.equal((await reservations.of(owner('a'))).length, 1)
    writeFileSync(join(directory(), '10.20.0.2'), 'b\r\neth0')
    assert.deepEqual(await reservations.of(owner('a')), [])
    assert.deepEqual(await reservations.release(owner('a')), [])
    assert.deepEqual((await reservations.of(owner('b'))).map(formatIp), ['10.20.0.2'])
    writeFileSync(join(directory(), '10.20.0.2'), 'c\r\neth0')
    assert.deepEqual(addressesOf(await reservations.reserve(owner('b'), small)), ['10.20.0.3'])
  })

  it('is made from every set or from none', async () => {
    const reservations = open()
    assert.deepEqual(addressesOf(await reservations.reserve(owner('a'), sets('10.20.0.0/29', 'fd00:20::/126'))), [
      '10.20.0.2',
      'fd00:20::2'
    ])
    assert.equal(readFileSync(join(directory(), 'last_reserved_ip.1'), 'utf8'), 'fd00:20::2')
    await reservations.reserve(owner('b'), sets('10.20.0.0/29', 'fd00:20::/126'))
    const third = await reservations.reserve(owner('c'), sets('10.20.0.0/29', 'fd00:20::/126'))
    assert.equal(third.kind, 'exhausted')
    assert.deepEqual(await reservations.of(owner('c')), [])
  })

  it('of an owner that holds one is refused with the address, and the first stays', async () => {
    const reservations = open()
    await reservations.reserve(owner('a'), small)
    assert.deepEqual(await reservations.reserve(owner('a'), small), { kind: 'held', ip: ip('10.20.0.2') })
    assert.deepEqual(addressesOf(await reservations.reserve(owner('a', 'eth1'), small)), ['10.20.0.3'])
  })

  it('of a certain address is that address or a refusal that names it, and a refusal leaves no file', async () => {
    const reservations = open()
    assert.deepEqual(addressesOf(await reservations.reserve(owner('a'), small, [ip('10.20.0.5')])), ['10.20.0.5'])
    for (const asked of ['10.20.0.5', '10.20.0.1', '10.20.0.7', '10.99.0.1']) {
      const answer = await reservations.reserve(owner('b'), small, [ip(asked)])
      assert.ok(
        answer.kind === 'refused' && answer.why.includes(asked),
        JSON.stringify(answer, (_, value) => String(value))
      )
    }
    assert.deepEqual(files(), ['10.20.0.5', 'last_reserved_ip.0', 'lock'])
  })

  it('says when the range is exhausted, and the address freed last comes back last', async () => {
    const reservations = open()
    for (const id of ['a', 'b', 'c', 'd', 'e']) await reservations.reserve(owner(id), small)
    const full = await reservations.reserve(owner('f'), small)
    assert.equal(full.kind, 'exhausted')
    await reservations.release(owner('d'))
    await reservations.release(owner('b'))
    assert.deepEqual(addressesOf(await reservations.reserve(owner('g'), small)), ['10.20.0.3'])
  })
})

describe('a release', () => {
  it("frees the owner's files only, by id and interface", async () => {
    const reservations = open()
    for (const each of [owner('a'), owner('a', 'eth1'), owner('b')]) await reservations.reserve(each, small)
    assert.deepEqual((await reservations.release(owner('a'))).map(formatIp), ['10.20.0.2'])
    assert.deepEqual((await reservations.list()).map(({ ip }) => formatIp(ip)).sort(), ['10.20.0.3', '10.20.0.4'])
  })

  it('frees a file of the old kind, with an id only, for any interface', async () => {
    const reservations = open()
    await reservations.reserve(owner('b'), small)
    writeFileSync(join(directory(), '10.20.0.6'), 'a\n')
    assert.deepEqual((await reservations.release(owner('a', 'net3'))).map(formatIp), ['10.20.0.6'])
  })

  it('succeeds again, for what never was, and where no directory is, and makes none', async () => {
    assert.deepEqual(await open().release(owner('a')), [])
    assert.equal(existsSync(directory()), false)
    const reservations = open()
    await reservations.reserve(owner('a'), small)
    await reservations.release(owner('a'))
    assert.deepEqual(await reservations.release(owner('a')), [])
  })

  it('sees what another process made since', async () => {
    const reservations = open()
    await reservations.reserve(owner('a'), small)
    writeFileSync(join(directory(), '10.20.0.5'), 'other\r\neth0')
    assert.deepEqual((await reservations.release(owner('other'))).map(formatIp), ['10.20.0.5'])
  })
})

describe('the directory', () => {
  it('is shared with host-local: what it holds is not given out, and foreign files and rubbish do no harm', async () => {
    mkdirSync(join(directory(), '10.20.0.4'), { recursive: true })
    writeFileSync(join(directory(), '10.20.0.2'), 'flannel-pod\r\neth0')
    writeFileSync(join(directory(), '10.20.0.3'), '')
    writeFileSync(join(directory(), 'last_reserved_ip.0'), '\0garbage')
    writeFileSync(join(directory(), 'notes.txt'), 'cid\r\neth0')
    assert.deepEqual(addressesOf(await open().reserve(owner('cid'), small)), ['10.20.0.5'])
  })

  it('gives different addresses to many at once, from several processes too', async () => {
    const pool = sets('10.30.0.0/24')
    const script = `
      import { Reservations } from '${import.meta.dirname}/../../../ipam/reservations.ts'
      import { rangeSets } from '${import.meta.dirname}/../../../ipam/pool.ts'
      import { parsePrefix } from '${import.meta.dirname}/../../../ipam/address.ts'
      import { flock } from '${import.meta.dirname}/../../../daemon/os/flock.ts'
      const reservations = new Reservations(process.argv[1], 'net1', { lock: flock, boot: { id: 'boot-1', since: 0 } })
      const sets = rangeSets([[{ subnet: parsePrefix('10.30.0.0/24') }]])
      for (let at = 0; at < 40; at++) {
        const answer = await reservations.reserve({ containerId: process.argv[2] + at, ifname: 'eth0' }, sets)
        if (answer.kind !== 'reserved') throw new Error(answer.kind)
      }`
    const other = promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, base, 'other'])
    const reservations = open()
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, at) => reservations.reserve(owner(`mine${at}`), pool))
    )
    await other
    assert.ok(answers.every((answer) => answer.kind === 'reserved'))
    assert.equal((await reservations.list()).length, 140)
    await Promise.all(Array.from({ length: 100 }, (_, at) => reservations.release(owner(`mine${at}`))))
    await Promise.all(Array.from({ length: 40 }, (_, at) => reservations.release(owner(`other${at}`))))
    assert.deepEqual(files(), ['last_reserved_ip.0', 'lock'])
  })

  it('is collected: what is gone, and empty files, which only a crash leaves', async () => {
    const reservations = open()
    for (const id of ['a', 'b']) await reservations.reserve(owner(id), small)
    writeFileSync(join(directory(), '10.20.0.6'), '')
    const gone = await reservations.collect(({ owner: each }) => each?.containerId === 'a')
    assert.deepEqual(gone.map(({ ip }) => formatIp(ip)).sort(), ['10.20.0.2', '10.20.0.6'])
    assert.deepEqual(
      (await reservations.list()).map(({ owner: each }) => each?.containerId),
      ['b']
    )
  })

  it('loses what a crash left half-written, and never another name of a finished reservation', async () => {
    const reservations = open()
    await reservations.reserve(owner('a'), small)
    await promisify(execFile)('ln', [join(directory(), '10.20.0.2'), join(directory(), '.new')])
    await reservations.reserve(owner('b'), small)
    assert.equal(readFileSync(join(directory(), '10.20.0.2'), 'utf8'), 'a\r\neth0')
    assert.equal(readFileSync(join(directory(), '10.20.0.3'), 'utf8'), 'b\r\neth0')
    assert.deepEqual(files(), ['10.20.0.2', '10.20.0.3', 'last_reserved_ip.0', 'lock'])
  })

  it('that is a file is an error that names it', async () => {
    writeFileSync(directory(), '')
    await assert.rejects(open().reserve(owner('a'), small), {
      name: 'ReservationsUnusable',
      message: new RegExp(directory())
    })
  })
})

describe('a folder that cannot be made', () => {
  // Node's own recursive mkdir never returns there.
  it('is an error that names it, in /proc too', async () => {
    const reservations = new Reservations('/proc/weft', 'net1', { lock: flock, boot: { id: 'boot-1', since: 0 } })
    await assert.rejects(reservations.reserve(owner('a'), small), /\/proc\/weft\/net1 can't be read or written: ENOENT/)
    const below = new Reservations(join(base, 'a/b'), 'net1', { lock: flock, boot: { id: 'boot-1', since: 0 } })
    assert.deepEqual(addressesOf(await below.reserve(owner('a'), small)), ['10.20.0.2'])
  })
})

describe('a lock that is not got', () => {
  it('is reported in the words of its holder, with the cure', async () => {
    const held = Object.assign(new Error('held by another process'), { cure: 'see which one' })
    const lock = () => Promise.reject(held)
    const reservations = new Reservations(base, 'net1', { lock, boot: { id: 'boot-1', since: 0 } })
    await assert.rejects(reservations.reserve(owner('a'), small), held)
  })
})

describe('a reboot', () => {
  const before = new Date('2026-01-01T00:00:00Z')
  const boot = { id: 'boot-2', since: Date.parse('2026-06-01T00:00:00Z') }

  it('empties what was reserved before it, and keeps what flannel has made since', async () => {
    await open().reserve(owner('a'), small)
    utimesSync(join(directory(), '10.20.0.2'), before, before)
    writeFileSync(join(directory(), '10.20.0.6'), 'flannel-pod\r\neth0')
    const after = open(boot)
    assert.deepEqual(
      (await after.list()).map(({ ip }) => formatIp(ip)),
      ['10.20.0.6']
    )
    assert.deepEqual(addressesOf(await after.reserve(owner('b'), small)), ['10.20.0.3'])
  })

  it('is found when a clock that was behind at boot is set right, also by a weftd that starts in between', async () => {
    await open().reserve(owner('before'), small)
    const written = new Date('2026-05-01T00:00:00Z')
    utimesSync(join(directory(), '10.20.0.2'), written, written)
    const clock = { id: 'boot-2', since: Date.parse('2020-01-01T00:00:00Z') }
    const now = mock.method(Date, 'now', () => clock.since + 60_000)
    const freed: string[] = []
    const reservations = new Reservations(base, 'net1', {
      lock: flock,
      boot: {
        id: clock.id,
        get since() {
          return clock.since
        },
        freed: (ips) => freed.push(...ips.map(formatIp))
      }
    })
    try {
      // One of this boot, by the wrong clock.
      await reservations.reserve(owner('after'), small)
      const wrong = new Date(clock.since + 30_000)
      utimesSync(join(directory(), '10.20.0.3'), wrong, wrong)
      assert.equal((await reservations.list()).length, 2, 'which is older is not known yet')
      assert.equal((await open(clock).list()).length, 2)
      clock.since = Date.parse('2026-06-01T00:00:00Z')
      for (const each of [reservations, open(clock)])
        assert.deepEqual(
          (await each.list()).map(({ ip }) => formatIp(ip)),
          ['10.20.0.3']
        )
      assert.deepEqual(freed, ['10.20.0.2'])
      assert.equal(readFileSync(join(base, '.weft-boot/net1'), 'utf8'), 'boot-2')
    } finally {
      now.mock.restore()
    }
  })

  it('is not assumed where we have never been: everything of the host-local before us stays', async () => {
    mkdirSync(directory())
    writeFileSync(join(directory(), '10.20.0.2'), 'flannel-pod\r\neth0')
    utimesSync(join(directory(), '10.20.0.2'), before, before)
    assert.equal((await open(boot).list()).length, 1)
  })
})
