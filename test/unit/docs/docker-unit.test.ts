// The drop-in for Docker's unit in docs/install.md, as systemd reads it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const PROGRAM = 'systemd-analyze'
const isMissing = spawnSync(PROGRAM, ['--version']).status !== 0

test("systemd takes the drop-in of docs/install.md for Docker's unit", {
  skip: isMissing && `${PROGRAM} is not installed`
}, (t) => {
  const text = readFileSync(new URL('../../../docs/install.md', import.meta.url), 'utf8')
  const dropIn = /docker\.service\.d\/weft\.conf <<'END'\n(.*?)\nEND\n/s.exec(text)?.[1] ?? assert.fail('no drop-in')
  const units = mkdtempSync(join(tmpdir(), 'weft-units-'))
  t.after(() => rmSync(units, { recursive: true }))
  mkdirSync(join(units, 'docker.service.d'))
  // Docker itself need not be installed.
  writeFileSync(join(units, 'docker.service'), '[Service]\nType=notify\nExecStart=/bin/true -H fd://\n')
  writeFileSync(
    join(units, 'docker.service.d/weft.conf'),
    `${dropIn.replaceAll('ExecStart=/usr/sbin/dockerd', 'ExecStart=/bin/true')}\n`
  )
  const { status, stderr } = spawnSync(PROGRAM, ['verify', '--man=no', 'docker.service'], {
    ...{ encoding: 'utf8', timeout: 30_000 },
    env: { ...process.env, SYSTEMD_UNIT_PATH: `${units}:/usr/lib/systemd/system:/lib/systemd/system` }
  })
  assert.equal(status, 0, stderr)
})
