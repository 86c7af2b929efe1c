// Notes of what commands were run for: written for the next weftd, and used only if they are whole.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Notes } from '../../../daemon/commands/notes.ts'
import { heard, silent } from '../logs.ts'

const folder = (t: { after(work: () => void): void }): string => {
  const path = mkdtempSync(join(tmpdir(), 'weft-notes-'))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

const peer = {
  ...{ key: '10.1.2.0-24&fd00:2::-64', environment: { SUBNET: '10.1.2.0/24' }, input: 'x', isSure: true },
  removed: { key: 'Backend.SubnetRemoveCommand', text: 'true' }
}
const start = { before: 'one', printed: 'x', after: { text: 'two', environment: { NETWORK: '10.0.0.0/8' } } }

test('the next weftd finds what was noted and not forgotten, in files for root only', (t) => {
  const path = folder(t)
  const notes = new Notes(path, silent)
  notes.noteStart(start)
  notes.notePeer(peer)
  notes.notePeer({ ...peer, key: '10.1.3.0-24' })
  notes.forgetPeer('10.1.3.0-24')
  notes.noteRunning('mark')
  const next = new Notes(path, silent)
  assert.deepEqual([next.start, [...next.peers.values()], next.running], [start, [peer], 'mark'])
  assert.equal(statSync(join(path, 'commands')).mode & 0o777, 0o700)
  assert.equal(statSync(join(path, 'commands/start.json')).mode & 0o777, 0o600)
  next.forgetStart()
  next.forgetRunning()
  const last = new Notes(path, silent)
  assert.deepEqual([last.start, last.running, last.peers.size], [undefined, undefined, 1])
})

test('a note that is not whole is not used', (t) => {
  const path = folder(t)
  mkdirSync(join(path, 'commands'))
  const write = (name: string, text: string) => writeFileSync(join(path, 'commands', name), text)
  const told: string[] = []
  const log = heard((_, fields) => void told.push(JSON.stringify(fields)))
  for (const wrong of [
    { ...peer, isSure: 1 },
    { ...peer, input: undefined },
    { ...peer, environment: { SUBNET: 1 } },
    { ...peer, environment: [] },
    { ...peer, removed: 'true' },
    { ...peer, added: { key: 'x' } }
  ]) {
    write('10.1.2.0-24.json', JSON.stringify(wrong))
    assert.equal(new Notes(path, log).peers.size, 0, JSON.stringify(wrong))
  }
  rmSync(join(path, 'commands/10.1.2.0-24.json'))
  for (const wrong of [
    {},
    { before: 1 },
    { ...start, after: {} },
    { ...start, shutdown: 'x' },
    { ...start, printed: 1 }
  ]) {
    write('start.json', JSON.stringify(wrong))
    assert.equal(new Notes(path, log).start, undefined, JSON.stringify(wrong))
  }
  write('no key.json', JSON.stringify(peer))
  assert.equal(new Notes(path, log).peers.size, 0)
  assert.deepEqual(told, [])
  write('start.json', '{"before":')
  assert.equal(new Notes(path, log).start, undefined)
  assert.match(told.join(), /start\.json/)
})

test('a directory that can’t be written is an error with its path, before anything is run', (t) => {
  const path = folder(t)
  writeFileSync(join(path, 'commands'), 'a file')
  const notes = () => {
    rmSync(join(path, 'commands'))
    const made = new Notes(path, silent)
    writeFileSync(join(path, 'commands'), 'a file')
    return made
  }
  assert.throws(() => notes().notePeer(peer), { code: 'STATE_UNWRITABLE', message: /commands\/10\.1\.2\.0-24/ })
})
