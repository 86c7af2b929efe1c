// The plan of a move: what it says of the gap by device, of what is missing, and flanneld's flags as weftd's variables.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseFlags } from '../../../daemon/cli/flag-parser.ts'
import { MIGRATE_FLAGS } from '../../../daemon/cli/migrate-flags.ts'
import { planText } from '../../../daemon/ctl/migrate.ts'
import type { Facts, KnownFlanneld, MoveRecord } from '../../../daemon/migrate/facts.ts'
import { planOf } from '../../../daemon/migrate/plan.ts'
import { environmentFile, settingsFrom, shownSettings } from '../../../daemon/migrate/settings.ts'

const places = { cniConfDir: '/etc/cni/net.d', cniBinDir: '/opt/cni/bin', cniSourceDir: '/src', migrateDir: '/kept' }
const flanneld: KnownFlanneld = {
  arguments: ['--etcd-endpoints=http://10.0.0.1:2379', '-ip-masq', '--iface', 'eth1', '-v=2', '--logtostderr'],
  environment: {},
  runBy: { kind: 'unit', unit: 'flanneld.service', isEnabled: true }
}
const device = { name: 'flannel.1', mac: '0a:00:00:00:00:01', backend: 'vxlan', outlivesFlanneld: true }
const facts: Facts = {
  flanneld,
  flanneldPids: [7],
  weftdAnswers: false,
  hasWeftdUnit: true,
  subnet: ['10.244.1.0/24'],
  ipMasq: true,
  devices: [device],
  conflist: { path: '/etc/cni/net.d/10-flannel.conflist', network: 'cbr0', types: ['flannel', 'portmap'] },
  pods: 3,
  chains: ['ip nat FLANNEL-POSTRTG'],
  hostPortChains: 1,
  foreignPlugins: ['bridge', 'flannel'],
  hasPluginSource: true
}
const apply = (over: Partial<Facts> = {}, commands = {}) => planOf('apply', { ...facts, ...over }, commands, places)

test('a plan says what is found, each step, what stays and that nothing is lost', () => {
  const plan = apply()
  assert.deepEqual(plan.faults, [])
  assert.match(plan.gap, /^none: /)
  const text = planText(plan)
  for (const words of [
    'flanneld runs (pid 7, flanneld.service)',
    'device flannel.1, MAC 0a:00:00:00:00:01',
    'stop and disable flanneld.service',
    'enable and start weftd.service',
    "install Weft's plugins in /opt/cni/bin, in place of bridge, flannel",
    'remove /etc/cni/net.d/10-flannel.conflist, once weftd has written',
    'remove ip nat FLANNEL-POSTRTG',
    'the lease of 10.244.1.0/24',
    '1 pod with host ports by portmap',
    'WEFTD_CNI_CONF_SOURCE=/kept/cni-conf.json'
  ])
    assert.ok(text.includes(words), `${words}\n${text}`)
  assert.doesNotMatch(text, /Missing/)
})

test('a device that ends with flanneld is a gap that is named, whatever its backend', () => {
  const dying = { ...device, name: 'flannel0', backend: 'some', outlivesFlanneld: false }
  const { gap, faults } = apply({ devices: [dying] })
  assert.match(gap, /^flannel0 ends with flanneld: .* less than two seconds/)
  assert.deepEqual(faults, [])
})

for (const [what, over, pattern] of [
  ['no flanneld', { flanneld: undefined, flanneldPids: [] }, /no flanneld runs/],
  [
    'a flanneld of Kubernetes',
    { flanneld: { ...flanneld, runBy: { kind: 'kubernetes' } } },
    /kubectl weft migrate plan/
  ],
  ['a flanneld of no unit', { flanneld: { ...flanneld, runBy: { kind: 'nobody' } } }, /--stop-flanneld=/],
  ['no unit of weftd', { hasWeftdUnit: false }, /--start-weftd=/],
  ['two flanneld', { flanneldPids: [7, 8] }, /several flanneld run here \(7, 8\)/],
  [
    'a backend that weftd lacks',
    { devices: [{ ...device, name: 'flannel-x', backend: undefined }] },
    /flannel-x belongs/
  ],
  ['no subnet', { subnet: [] }, /no subnet yet/],
  ['no plugins', { hasPluginSource: false }, /no plugins of Weft in \/src/],
  ['an unknown flag', { flanneld: { ...flanneld, arguments: ['--nonsense=1'] } }, /no flag --nonsense/]
] as const) {
  test(`${what} is a fault with its cure, and the plan would do nothing`, () => {
    const { faults } = apply(over as Partial<Facts>)
    assert.equal(faults.length, 1, JSON.stringify(faults))
    assert.match(`${faults[0]?.message} ${faults[0]?.cure}`, pattern)
  })
}

test('commands of the command line replace units', () => {
  const nobody = { hasWeftdUnit: false, flanneld: { ...flanneld, runBy: { kind: 'nobody' } as const } }
  const plan = apply(nobody, { stopFlanneld: '/etc/init.d/flannel stop', startWeftd: '/etc/init.d/weftd start' })
  assert.deepEqual(plan.faults, [])
  assert.match(planText(plan), /run \/etc\/init\.d\/flannel stop[\s\S]*run \/etc\/init\.d\/weftd start/)
})

test('the flags have a usual value for every place, and commands are words without a space before them', () => {
  const parsed = parseFlags(MIGRATE_FLAGS, ['WEFTCTL_'], ['--stop-weftd=service weftd stop'], {})
  assert.ok('values' in parsed)
  const { cniConfDir, cniBinDir, subnetFile, stopWeftd } = parsed.values
  assert.deepEqual(
    [cniConfDir, cniBinDir, subnetFile, stopWeftd],
    ['/etc/cni/net.d', '/opt/cni/bin', '/run/flannel/subnet.env', 'service weftd stop']
  )
  assert.ok('errors' in parseFlags(MIGRATE_FLAGS, ['WEFTCTL_'], ['--stop-weftd= x'], {}))
})

test('the way back needs a record, and names what it restores', () => {
  assert.match(String(planOf('rollback', facts, {}, places).faults[0]?.message), /no record of a move in \/kept/)
  const { conflist: list, ...rest } = facts
  assert.ok(list)
  const record: MoveRecord = {
    version: 1,
    at: '2026-01-02T03:04:05.678Z',
    direction: 'apply',
    isComplete: false,
    flanneld,
    conflist: { ...list, mode: 0o644 },
    plugins: ['flannel']
  }
  const plan = planOf('rollback', { ...rest, record, weftdAnswers: true, flanneldPids: [] }, {}, places)
  assert.deepEqual(plan.faults, [])
  const text = planText(plan)
  assert.match(text, /apply of 2026-01-02T03:04:05Z, not finished/)
  assert.match(text, /restore \/etc\/cni\/net\.d\/10-flannel\.conflist/)
  assert.match(text, /start flanneld\.service/)
})

test('flanneld’s flags and variables become weftd’s; what is repeated goes into WEFT_OPTIONS', () => {
  const { settings, faults } = settingsFrom(
    {
      arguments: ['--iface=eth1', '--iface=eth2', '-ip-masq=true', '--vmodule=x=1', '--etcd-prefix', '/net'],
      environment: { FLANNELD_ETCD_PASSWORD: 'a"b$c', FLANNELD_ETCD_PREFIX: '/other', NODE_NAME: 'n1' }
    },
    undefined
  )
  assert.deepEqual(faults, [])
  assert.deepEqual(settings, {
    WEFTD_ETCD_PREFIX: '/net',
    WEFTD_IP_MASQ: 'true',
    WEFTD_ETCD_PASSWORD: 'a"b$c',
    WEFTD_NODE_NAME: 'n1',
    WEFT_OPTIONS: '--iface=eth1 --iface=eth2'
  })
  assert.doesNotMatch(shownSettings(settings).join('\n'), /a"b/)
  assert.match(environmentFile(settings), /^WEFTD_ETCD_PASSWORD="a\\"b\\\$c"$/m)
})

test('a value that weftd refuses, and a repeated one with a space, are faults', () => {
  const faultsOf = (...words: readonly string[]) =>
    settingsFrom({ arguments: words, environment: {} }, undefined).faults
  assert.match(String(faultsOf('--healthz-port=x')[0]), /healthz-port is "x"/)
  assert.match(String(faultsOf('--iface-regex=a b', '--iface-regex=c')[0]), /--iface-regex is repeated and has a space/)
  assert.match(String(faultsOf('--etcd-username=u', '--etcd-password=')[0] ?? ''), /^$/)
})
