// README's way with etcd, command by command as written, on two hosts: from nothing to a ping between pods.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BIN, Cluster, PREFIX } from './cluster.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'
import { weftdCommand } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const repository = fileURLToPath(new URL('../../', import.meta.url))

/** The commands of a section, block by block; systemd's, which test/lab/systemd.test.ts runs, are left out. */
function commandsOf(heading: string): readonly string[] {
  const text = readFileSync(join(repository, 'README.md'), 'utf8')
  const section = text.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? assert.fail(heading)
  const blocks = [...section.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = '']) => block)
  return blocks.filter((block) => !block.includes('systemctl'))
}

/** A folder with what scripts/build leaves, the programs as wrappers of the source. */
async function built(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-readme-'))
  await mkdir(join(folder, 'dist/bin'), { recursive: true })
  symlinkSync(BIN, join(folder, 'dist/cni'))
  const [command, main] = weftdCommand()
  const wrapper = (...words: readonly (string | undefined)[]) => `#!/bin/sh\nexec ${words.join(' ')} "$@"\n`
  const programs = {
    weftd: wrapper(command, main),
    weftctl: wrapper(process.execPath, `${repository}daemon/ctl/main.ts`)
  }
  for (const [name, text] of Object.entries(programs))
    writeFileSync(join(folder, 'dist/bin', name), text, { mode: 0o755 })
  return folder
}

test('the commands of "Use it with etcd" lead from nothing to a ping between pods of two hosts', {
  skip,
  timeout: 300_000
}, async (t) => {
  const folder = await built()
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  await using cluster = await Cluster.start({ hosts: [2], start: false })
  await cluster.etcd.ctl(['del', `${PREFIX}/config`])
  const [put = '', install = '', start = '', add = '', ping = '', del = ''] = commandsOf('Use it with etcd')
  const on = (host: Host, commands: string) =>
    host.sh(`cd ${folder}; ${commands.replaceAll('http://192.0.2.1:2379', cluster.etcd.endpointList)}`)
  const addresses: string[] = []
  await using ends = new AsyncDisposableStack()
  await on(cluster.node(1), put)
  for (const host of cluster.nodes) {
    await host.sh('for d in /usr/local/bin /opt /var/log; do mount -t tmpfs tmpfs $d; done')
    await on(host, install)
    // Without waiting for its end: nobody may be there to reap it.
    ends.defer(async () => {
      await host.exec('sh', ['-c', 'kill $(cat /run/weftd.pid)'], { check: false })
    })
    await on(host, `${start.trimEnd()}\necho $! > /run/weftd.pid`)
    const status = () => host.exec('weftctl', ['status'], { check: false })
    await until(async () => / ready /.test((await status()).stdout), { what: 'ready', deadlineMs: 60_000 })
    const { stdout } = await on(host, add)
    addresses.push(/"address": ?"([\d.]+)\/24"/.exec(stdout)?.[1] ?? assert.fail(stdout))
  }
  for (const [at, host] of cluster.nodes.entries()) {
    const other = addresses[1 - at] ?? assert.fail()
    const { stdout } = await on(host, ping.replace('ADDRESS', other))
    assert.match(stdout, /3 received/)
  }
  for (const host of cluster.nodes) await on(host, `${add.split('\n')[1]}\n${del}`)
})
