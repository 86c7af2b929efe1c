// The lease file and the file that people edit: whose network configuration counts.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pino } from 'pino'
import { EmbeddedStore } from '../../../daemon/lease/embedded.ts'

const ONE = '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
const OTHER = ONE.replace('10.244', '10.9')
const never = new AbortController().signal
const around = { log: pino({ enabled: false }), report: { raise: () => {}, clear: () => {} } }

async function inFolder(work: (leases: string, netConf: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-embedded-'))
  try {
    await work(join(folder, 'leases.db'), join(folder, 'net-conf.json'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('what --net-config-path holds when it is asked for counts, however often it was another', () =>
  inFolder(async (path, netConfigPath) => {
    for (const text of ['', '{', ONE, OTHER]) {
      writeFileSync(netConfigPath, text)
      await using store = new EmbeddedStore({ path, netConfigPath }, around)
      assert.equal(await store.configuration(never), text)
      writeFileSync(netConfigPath, `${text} `)
      assert.equal(await store.configuration(never), `${text} `, 'edited while the first was refused')
    }
  }))

test('without that file the configuration of the lease file stays', () =>
  inFolder(async (path, netConfigPath) => {
    await using store = new EmbeddedStore({ path, netConfigPath }, around)
    store.configure(ONE)
    assert.equal(await store.configuration(never), ONE)
    assert.equal(store.configurationPlace, `the lease file ${path}`)
    writeFileSync(netConfigPath, ONE)
    assert.equal(store.configurationPlace, `${netConfigPath}, kept in the lease file ${path}`)
  }))

test('a --net-config-path that is no readable file is refused by its name', () =>
  inFolder(async (path, netConfigPath) => {
    mkdirSync(netConfigPath)
    await using store = new EmbeddedStore({ path, netConfigPath }, around)
    await assert.rejects(store.configuration(never), {
      code: 'OPTION_INVALID',
      message: /net-conf\.json can not be read/
    })
  }))
