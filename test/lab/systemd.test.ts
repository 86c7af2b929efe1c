// The unit under a real systemd, in a container with a host's network: enable --now returns when pods can be served,
// and a start that waits says what for.
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Lab } from './hosts.ts'
import { run } from './run.ts'

const needs = ['/usr/bin/systemd-nspawn', '/usr/lib/systemd/systemd'].filter((path) => !existsSync(path))
const skip =
  process.getuid?.() !== 0 ? 'needs root' : needs.length > 0 && `needs ${needs.join(' and ')} (systemd-container)`

const repository = fileURLToPath(new URL('../../', import.meta.url))
const modules = realpathSync(join(repository, 'node_modules'))
/** Where the container has the repository: the unit hides /tmp and /home, where a checkout may be. */
const INSIDE = '/srv/weft/'
const inside = (path: string) => path.replace(repository, INSIDE)
const program = (entry: string) => `#!/bin/sh\nexec ${inside(realpathSync(process.execPath))} ${INSIDE}${entry} "$@"\n`

/** What the administrator types, with its output in files of their own. */
const STORY = `cd /story
(systemctl enable --now weftd; echo "exit $?") > started 2>&1
(weftctl status; echo "exit $?") > status 2>&1
systemctl show weftd -p Type -p ActiveState -p StatusText > ready
cp /run/flannel/subnet.env .
systemctl stop weftd
echo '{"Network":"nowhere"}' > /etc/weft/net-conf.json
rm /run/weft/lease.json
systemctl start weftd --no-block
for i in $(seq 300); do
  systemctl show weftd -p ActiveState -p StatusText > waiting
  grep -q CONFIG_INVALID waiting && break
  sleep 0.1
done
systemctl stop weftd
poweroff -f
`

/** Folders and files of the container; on the machine they are in `folder`. */
function prepare(folder: string): readonly string[] {
  const file = (path: string, text: string, mode = 0o644) => {
    mkdirSync(join(folder, path, '..'), { recursive: true })
    writeFileSync(join(folder, path), text, { mode })
    return join(folder, path)
  }
  file('bin/weftd', program('daemon/main.ts'), 0o755)
  file('bin/weftctl', program('daemon/ctl/main.ts'), 0o755)
  file('story/run', STORY)
  const units = '/etc/systemd/system'
  const story = '[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\nExecStart=/bin/sh /story/run\n'
  const settings = 'WEFTD_STORE=embedded\nWEFTD_NET_CONFIG_PATH=/etc/weft/net-conf.json\n'
  return [
    `--bind=${file('net-conf.json', '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}')}:/etc/weft/net-conf.json`,
    `--bind=${join(folder, 'story')}:/story`,
    `--bind-ro=${join(folder, 'bin')}:/usr/local/bin`,
    `--bind-ro=${file('story.service', story)}:${units}/story.service`,
    `--bind-ro=${file('settings', settings)}:/etc/default/weftd`,
    `--bind-ro=${repository}deploy/systemd/weftd.service:${units}/weftd.service`,
    `--bind-ro=${repository}:${INSIDE}`,
    ...(modules.startsWith(repository) ? [] : [`--bind-ro=${modules}`])
  ]
}

test('enable --now returns when pods can be served, weftctl answers at once, and a start that waits says what for', {
  skip,
  timeout: 300_000
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-systemd-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  await using lab = await Lab.start({ hosts: [1] })
  const [host] = lab.hosts
  assert.ok(host)
  const options = ['--quiet', '--console=pipe', '--register=no', '--keep-unit', '--directory=/', '--volatile=yes']
  const network = [`--network-namespace-path=/proc/${host.pid}/ns/net`, '--capability=CAP_NET_ADMIN']
  // What the container has from the machine but does not need; networkd would wait for links that it does not manage.
  const kernel = ['firstboot=no', 'mask=systemd-networkd.service', 'mask=systemd-networkd-wait-online.service']
  const boot = ['--boot', 'systemd.unit=story.service', ...kernel.map((word) => `systemd.${word}`)]
  const { stdout, stderr } = await run('systemd-nspawn', [...options, ...network, ...prepare(folder), ...boot], {
    check: false,
    timeoutMs: 120_000
  })
  const told = (name: string): string => {
    const path = join(folder, 'story', name)
    return existsSync(path) ? readFileSync(path, 'utf8') : assert.fail(`no ${name}: ${stdout}${stderr}`)
  }
  assert.match(told('started'), /exit 0\n$/)
  assert.match(told('status'), /^\S+: ready [\s\S]*exit 0\n$/)
  assert.match(told('ready'), /Type=notify\n/)
  assert.match(told('ready'), /StatusText=ready\nActiveState=active|ActiveState=active\nStatusText=ready/)
  assert.match(told('subnet.env'), /^FLANNEL_SUBNET=10\.244\./m)
  assert.match(told('waiting'), /ActiveState=activating/)
  assert.match(told('waiting'), /StatusText=waiting: CONFIG_INVALID: .*Network is "nowhere"/)
})
