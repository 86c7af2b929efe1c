// The way without Kubernetes: unit file and settings against weftd's options and against the DaemonSet, so that both
// stay the same.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import test from 'node:test'
import type { DaemonSet } from 'kubernetes-types/apps/v1.js'
import { FLAGS } from '../../../daemon/cli/flag-table.ts'
import { parseOptions } from '../../../daemon/cli/parse-options.ts'
import { parseCommand } from '../../../daemon/cli/subcommands.ts'
import { deployFolder, only } from './manifests.ts'

const unit = readFileSync(`${deployFolder}systemd/weftd.service`, 'utf8')
const settings = readFileSync(`${deployFolder}sysconfig/weftd`, 'utf8')

/** The values of a key of the unit, in order. */
const values = (key: string): readonly string[] =>
  [...unit.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].flatMap(([, text = '']) => text.split(' '))

test('every setting, those that are commented out too, is a flag with a value that it takes', () => {
  const written = [...settings.matchAll(/^#?(WEFTD_[A-Z_]+)=(.*)$/gm)].map(([, name = '', value = '']) => [name, value])
  assert.ok(written.length > 10)
  const parsed = parseOptions([], Object.fromEntries(written))
  assert.ok(parsed.kind === 'run', parsed.kind === 'wrong' ? parsed.errors.map(String).join('\n') : parsed.kind)
  assert.deepEqual(parsed.unknownVariables, [])
})

test('the unit of the UDP proxy runs it beside weftd, with the same directory and less privilege', () => {
  const proxy = readFileSync(`${deployFolder}systemd/weftd-udp-proxy.service`, 'utf8')
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(proxy)?.[1]
  assert.equal(value('ExecStart'), '/usr/local/bin/weftd udp-proxy')
  assert.equal(parseCommand(['udp-proxy'], {}).kind, 'udp-proxy')
  assert.deepEqual([value('Before'), value('Restart')], ['weftd.service', 'always'])
  assert.deepEqual([value('RuntimeDirectory')], values('RuntimeDirectory'))
  assert.equal(value('CapabilityBoundingSet'), 'CAP_NET_ADMIN')
  assert.match(settings, /^#WEFTD_UDP_PROXY=external$/m)
})

test("the service has the capabilities of the DaemonSet's pod, and one more for Docker's namespaces", () => {
  const [weftd] = only<DaemonSet>('DaemonSet').spec?.template.spec?.containers ?? []
  const pods = weftd?.securityContext?.capabilities?.add?.map((name) => `CAP_${name}`) ?? []
  assert.deepEqual(values('CapabilityBoundingSet').toSorted(), [...pods, 'CAP_SYS_PTRACE'].toSorted())
})

test('what weftd writes is writable, although the rest of the system is not', () => {
  assert.deepEqual(values('ProtectSystem'), ['strict'])
  const writable = [
    ...values('ReadWritePaths').map((path) => path.replace(/^-/, '')),
    ...values('StateDirectory').map((name) => `/var/lib/${name}`),
    ...values('RuntimeDirectory').map((name) => `/run/${name}`)
  ]
  const [, confDir = ''] = /^#WEFTD_CNI_CONF_DIR=(.*)$/m.exec(settings) ?? []
  const paths = [FLAGS['state-dir'].default, FLAGS['subnet-file'].default, FLAGS['embedded-path'].default, confDir]
  for (const path of [...paths, '/var/lib/cni/networks', '/run/xtables.lock'])
    assert.ok(
      writable.some((place) => path === place || path.startsWith(`${place}/`)),
      path
    )
})

test('the documentation that the unit names is put there by the steps of docs/install.md', () => {
  const steps = readFileSync(`${deployFolder}../docs/install.md`, 'utf8')
  const files = values('Documentation').map((url) => url.replace(/^file:/, ''))
  assert.ok(files.length > 0)
  for (const path of files) {
    const [, source = ''] = new RegExp(`^install -D -m 644 (\\S+) ${path}$`, 'm').exec(steps) ?? assert.fail(path)
    assert.ok(existsSync(`${deployFolder}../${source}`), source)
  }
})
