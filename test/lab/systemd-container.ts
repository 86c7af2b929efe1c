// A real systemd in a container with the network of a host of the lab: runs a script as an administrator would type it,
// with this repository's unit and programs, and returns what the script has written.
import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Host } from './host.ts'
import { run } from './run.ts'

const needs = ['/usr/bin/systemd-nspawn', '/usr/lib/systemd/systemd'].filter((path) => !existsSync(path))
export const noSystemd =
  process.getuid?.() !== 0 ? 'needs root' : needs.length > 0 && `needs ${needs.join(' and ')} (systemd-container)`

const repository = fileURLToPath(new URL('../../', import.meta.url))
/** Links of a working tree lead to folders outside it. */
const outside = ['node_modules', 'dist']
  .map((name) => join(repository, name))
  .filter((path) => existsSync(path))
  .map((path) => realpathSync(path))
  .filter((path) => !path.startsWith(repository))
/** Where the container has the repository: the unit hides /tmp and /home, where a checkout may be. */
export const INSIDE = '/srv/weft/'
const inside = (path: string) => path.replace(repository, INSIDE)
const program = (entry: string) => `#!/bin/sh\nexec ${inside(realpathSync(process.execPath))} ${INSIDE}${entry} "$@"\n`
export const UNITS = '/etc/systemd/system'

export type Story = {
  readonly host: Host
  /** Run by sh in the folder /story, whose files are returned. */
  readonly script: string
  /** Text by path in the container. */
  readonly files: Readonly<Record<string, string>>
  /** Folders and files of this machine that the container has at the same paths. */
  readonly shared?: readonly string[]
}

export async function runInSystemd({ host, script, files, shared = [] }: Story): Promise<(name: string) => string> {
  const folder = mkdtempSync(join(tmpdir(), 'weft-systemd-'))
  try {
    const options = ['--quiet', '--console=pipe', '--register=no', '--keep-unit', '--directory=/', '--volatile=yes']
    const network = [`--network-namespace-path=/proc/${host.pid}/ns/net`, '--capability=CAP_NET_ADMIN']
    // What the container has from the machine but does not need; networkd would wait for links that it does not manage.
    const kernel = ['firstboot=no', 'mask=systemd-networkd.service', 'mask=systemd-networkd-wait-online.service']
    const boot = ['--boot', 'systemd.unit=story.service', ...kernel.map((word) => `systemd.${word}`)]
    const binds = [...prepare(folder, script, files), ...[...outside, ...shared].map((path) => `--bind-ro=${path}`)]
    const { stdout, stderr } = await run('systemd-nspawn', [...options, ...network, ...binds, ...boot], {
      check: false,
      timeoutMs: 180_000
    })
    const names = readdirSync(join(folder, 'story'))
    const told = new Map(names.map((name) => [name, readFileSync(join(folder, 'story', name), 'utf8')]))
    return (name) => told.get(name) ?? assert.fail(`no ${name}: ${stdout}${stderr}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Folders and files of the container; on the machine they are in `folder`. */
function prepare(folder: string, script: string, files: Story['files']): readonly string[] {
  const file = (path: string, text: string, mode = 0o644) => {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text, { mode })
    return join(folder, path)
  }
  file('bin/weftd', program('daemon/main.ts'), 0o755)
  file('bin/weftctl', program('daemon/ctl/main.ts'), 0o755)
  file('story/run', `cd /story\n${script}\npoweroff -f\n`)
  const story = '[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nExecStart=/bin/sh /story/run\n'
  return [
    ...Object.entries(files).map(([path, text]) => `--bind=${file(`files${path}`, text)}:${path}`),
    `--bind=${join(folder, 'story')}:/story`,
    `--bind-ro=${join(folder, 'bin')}:/usr/local/bin`,
    `--bind-ro=${file('story.service', story)}:${UNITS}/story.service`,
    `--bind-ro=${repository}deploy/systemd/weftd.service:${UNITS}/weftd.service`,
    `--bind-ro=${repository}:${INSIDE}`
  ]
}
