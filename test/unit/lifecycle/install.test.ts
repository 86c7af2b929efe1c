// `weftd install` and what takes the plugins away again: atomic, idempotent, and careful with other programs' files.
import assert from 'node:assert/strict'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { parseCommand, printCleanHelp, printInstallHelp } from '../../../daemon/cli/subcommands.ts'
import { type Installed, installedText, installPlugins, removePlugins } from '../../../daemon/lifecycle/install.ts'
import { pluginTypes } from '../../../plugins/types/registry.ts'

/** As the executables are: an ELF that knows the socket. */
const ours = (version: string) => Buffer.from(`\x7fELF ${version} \0/run/weft/weftd.sock\0`, 'latin1')

function place() {
  const root = mkdtempSync(join(tmpdir(), 'weft-install-'))
  const from = join(root, 'from')
  const to = join(root, 'opt/cni/bin')
  mkdirSync(from)
  writeFileSync(join(from, 'weft'), ours('2'))
  for (const name of pluginTypes) if (name !== 'weft') linkSync(join(from, 'weft'), join(from, name))
  const install = (replaceForeign = false) => installPlugins({ from, to, replaceForeign })
  return { root, from, to, install, [Symbol.dispose]: () => rmSync(root, { recursive: true }) }
}

const kinds = (results: readonly Installed[]) => [...new Set(results.map(({ kind }) => kind))]

test('every plugin is put in place as an executable file of its own, and nothing else is left there', () => {
  using node = place()
  const umask = process.umask(0o077)
  try {
    assert.deepEqual(kinds(node.install()), ['installed'])
  } finally {
    process.umask(umask)
  }
  assert.deepEqual(readdirSync(node.to).sort(), [...pluginTypes].sort())
  for (const name of pluginTypes) {
    const { mode, nlink } = statSync(join(node.to, name))
    // Several names of one file would all change when somebody copies another program over one of them.
    assert.deepEqual([mode & 0o777, nlink], [0o755, 1])
  }
})

test('a second run changes no file, by their inodes', () => {
  using node = place()
  node.install()
  const inodes = () => pluginTypes.map((name) => statSync(join(node.to, name)).ino)
  const before = inodes()
  assert.deepEqual(kinds(node.install()), ['same'])
  assert.deepEqual(inodes(), before)
})

test('an older version is replaced by renaming: whoever runs the old file keeps it whole', () => {
  using node = place()
  mkdirSync(node.to, { recursive: true })
  writeFileSync(join(node.to, 'weft'), ours('1'), { mode: 0o755 })
  const running = openSync(join(node.to, 'weft'), 'r')
  const found = node.install().find(({ path }) => path.endsWith('/weft'))
  assert.equal(found?.kind, 'replaced')
  const old = Buffer.alloc(100)
  const length = readSync(running, old)
  closeSync(running)
  assert.deepEqual(old.subarray(0, length), ours('1'))
  assert.deepEqual(readFileSync(join(node.to, 'weft')), ours('2'))
})

test("other programs' files are kept and named, until one says otherwise", () => {
  using node = place()
  mkdirSync(node.to, { recursive: true })
  writeFileSync(join(node.to, 'bridge'), '\x7fELF the reference plugin')
  writeFileSync(join(node.to, 'cilium-cni'), 'not ours by name')
  const results = node.install()
  const bridge = results.find(({ path }) => path.endsWith('/bridge'))
  assert.equal(bridge?.kind, 'kept')
  assert.match(installedText(bridge as Installed), /bridge: kept, it is another program's .*--replace-foreign/)
  assert.equal(readFileSync(join(node.to, 'bridge'), 'latin1'), '\x7fELF the reference plugin')
  assert.equal(node.install(true).find(({ path }) => path.endsWith('/bridge'))?.kind, 'replaced')
  assert.deepEqual(readFileSync(join(node.to, 'bridge')), ours('2'))
  assert.equal(readFileSync(join(node.to, 'cilium-cni'), 'latin1'), 'not ours by name')
})

test('half a file under our own name is replaced, and so is one that cannot be executed', () => {
  using node = place()
  node.install()
  writeFileSync(join(node.to, 'weft'), '\x7fEL')
  chmodSync(join(node.to, 'loopback'), 0o644)
  node.install()
  assert.deepEqual(readFileSync(join(node.to, 'weft')), ours('2'))
  assert.equal(statSync(join(node.to, 'loopback')).mode & 0o777, 0o755)
})

test('what a killed run left half written is gone after the next', () => {
  using node = place()
  mkdirSync(node.to, { recursive: true })
  writeFileSync(join(node.to, '.weft.weft-new'), 'half')
  node.install()
  assert.equal(existsSync(join(node.to, '.weft.weft-new')), false)
})

test('one file that cannot be put in place does not keep the others out, and is reported with path, reason and cure', () => {
  using node = place()
  mkdirSync(join(node.to, 'tuning'), { recursive: true })
  const results = node.install()
  const failed = results.filter(({ kind }) => kind === 'failed')
  assert.equal(failed.length, 1)
  assert.match(installedText(failed[0] as Installed), /\/tuning cannot be installed: EISDIR.*\ncure: /)
  assert.equal(results.filter(({ kind }) => kind === 'installed').length, pluginTypes.length - 1)
})

test('a source directory that is not there is reported once, with the flag that names another', () => {
  using node = place()
  rmSync(node.from, { recursive: true })
  const [installed, ...more] = node.install()
  assert.equal(more.length, 0)
  assert.match(
    installedText(installed as Installed),
    /no plugins can be installed: the directory .* does not exist\ncure: .*--cni-source-dir/
  )
})

test('a source that is no plugin of ours is refused', () => {
  using node = place()
  rmSync(join(node.from, 'ptp'))
  writeFileSync(join(node.from, 'ptp'), '#!/bin/sh')
  const failed = node.install().filter(({ kind }) => kind === 'failed')
  assert.equal(failed.length, 1)
  assert.match(installedText(failed[0] as Installed), /ptp is not a plugin of Weft/)
})

test("removal takes our files whatever their name and version, and nobody else's", () => {
  using node = place()
  node.install()
  writeFileSync(join(node.to, 'of-an-old-version'), ours('0'))
  writeFileSync(join(node.to, 'bridge'), '\x7fELF the reference plugin')
  writeFileSync(join(node.to, 'script'), '#!/bin/sh\ncat /run/weft/weftd.sock')
  symlinkSync('/nowhere', join(node.to, 'dangling'))
  symlinkSync('a-loop', join(node.to, 'a-loop'))
  assert.equal(removePlugins(node.to).length, pluginTypes.length)
  assert.deepEqual(readdirSync(node.to).sort(), ['a-loop', 'bridge', 'dangling', 'script'])
  assert.deepEqual(removePlugins(node.to), [])
  assert.deepEqual(removePlugins(join(node.root, 'nowhere')), [])
})

test('the words of the command line: install with its defaults, clean with the usual places, and everything else is the daemon', () => {
  assert.deepEqual(parseCommand(['install'], {}), {
    kind: 'install',
    flags: { cniBinDir: '/opt/cni/bin', cniSourceDir: '/usr/lib/weft/cni', replaceForeign: false, help: false }
  })
  const set = parseCommand(['install', '--replace-foreign', '--cni-bin-dir', '/x'], { WEFTD_CNI_SOURCE_DIR: '/y' })
  assert.deepEqual(set, {
    kind: 'install',
    flags: { cniBinDir: '/x', cniSourceDir: '/y', replaceForeign: true, help: false }
  })
  assert.equal(parseCommand(['install', '--help'], {}).kind, 'install help')
  const unknown = parseCommand(['install', '--bindir=/x'], {})
  assert.ok(unknown.kind === 'wrong' && /--cni-bin-dir|--bindir/.test(unknown.errors[0]?.message ?? ''))
  const clean = parseCommand(['clean', '--cni-conf-dir=/c'], {})
  assert.ok(clean.kind === 'clean' && clean.parsed.kind === 'run')
  assert.deepEqual([clean.parsed.options.cniConfDir, clean.parsed.options.cniBinDir], ['/c', '/opt/cni/bin'])
  assert.equal(parseCommand(['clean', '--help'], {}).kind, 'clean help')
  const daemon = parseCommand(['--ip-masq'], {})
  assert.ok(daemon.kind === 'daemon' && daemon.parsed.kind === 'run')
  assert.equal(daemon.parsed.options.cniConfDir, undefined)
})

test('a misspelled command is answered with the nearest, as weftctl does, and not read as a flag', () => {
  for (const [word, message] of [
    ['instal', 'there is no command "instal"; the nearest is install'],
    ['manual', 'there is no command "manual"'],
    ['', 'there is no command ""']
  ] as const) {
    const { kind, ...rest } = parseCommand([word, '--cni-bin-dir=/x'], {})
    assert.equal(kind, 'wrong')
    const [error, ...others] = 'errors' in rest ? rest.errors : []
    assert.deepEqual([error?.code, error?.message, others], ['COMMAND_UNKNOWN', message, []])
    assert.match(error?.cure ?? '', /install, clean, man, completion \(see weftd --help\)/)
  }
})

test('the help of install has each of its flags, within the width', () => {
  const help = printInstallHelp(100)
  for (const flag of ['--cni-bin-dir', '--cni-source-dir', '--replace-foreign']) assert.ok(help.includes(flag), flag)
  assert.ok(
    help.split('\n').every((line) => line.length <= 100),
    help
  )
})

test('the help of clean says what goes, what stays, which flags matter, and its exit status', () => {
  const help = printCleanHelp(100)
  for (const part of ['Removed:', 'Kept:', '--cni-conf-dir', '--cni-bin-dir', '/opt/cni/bin', '--state-dir', 'Exit'])
    assert.ok(help.includes(part), part)
  assert.equal(help.includes('--etcd-endpoints'), false)
  assert.ok(
    help.split('\n').every((line) => line.length <= 100),
    help
  )
})
