// The table of weftd's flags: flanneld's names and defaults, and what contradicts itself.
import assert from 'node:assert/strict'
import test from 'node:test'
import { type Flags, writtenAs } from '../../../daemon/cli/flag-parser.ts'
import { FLAGS, GROUPS, type Options } from '../../../daemon/cli/flag-table.ts'
import { parseOptions, printHelp, printVersion } from '../../../daemon/cli/parse-options.ts'
import { reportUnknownVariables } from '../../../daemon/health/condition-log.ts'
import { Health } from '../../../daemon/health/health.ts'
import { formatIp, parseIp } from '../../../ipam/address.ts'

function options(argv: readonly string[], env: Record<string, string> = {}): Options {
  const parsed = parseOptions(argv, env)
  assert.equal(parsed.kind, 'run', parsed.kind === 'wrong' ? parsed.errors.map(String).join('\n') : parsed.kind)
  assert.ok(parsed.kind === 'run')
  return parsed.options
}

function errors(argv: readonly string[]): readonly string[] {
  const parsed = parseOptions(argv, {})
  assert.ok(parsed.kind === 'wrong', `${argv.join(' ')} was accepted`)
  return parsed.errors.map((error) => `${error.message}. ${error.cure}`)
}

/** flanneld's flags and defaults; `undefined`: it has none. */
const flanneld: Record<string, string | undefined> = {
  'etcd-endpoints': 'http://127.0.0.1:4001,http://127.0.0.1:2379',
  'etcd-prefix': '/coreos.com/network',
  'etcd-keyfile': undefined,
  'etcd-certfile': undefined,
  'etcd-cafile': undefined,
  'etcd-username': undefined,
  'etcd-password': undefined,
  iface: undefined,
  'iface-regex': undefined,
  'iface-can-reach': undefined,
  'public-ip': undefined,
  'public-ipv6': undefined,
  'subnet-file': '/run/flannel/subnet.env',
  'subnet-lease-renew-margin': '60',
  'ip-masq': 'false',
  'ip-masq-fully-random-disable': 'false',
  'kube-subnet-mgr': 'false',
  'kube-api-url': undefined,
  'kubeconfig-file': undefined,
  'kube-annotation-prefix': 'flannel.alpha.coreos.com',
  'net-config-path': '/etc/kube-flannel/net-conf.json',
  'set-node-network-unavailable': 'true',
  'healthz-ip': '0.0.0.0',
  'healthz-port': '0',
  'iptables-resync': '5',
  'iptables-forward-rules': 'true',
  'ip-blackhole-route': 'false',
  version: 'false',
  v: '0',
  vmodule: undefined,
  log_backtrace_at: undefined
}

test('every flag of flanneld exists, with its default', () => {
  const table: Flags = FLAGS
  const ours = Object.fromEntries(Object.keys(flanneld).map((name) => [name, table[name]?.default]))
  assert.deepEqual(ours, flanneld)
  for (const name of Object.keys(flanneld)) assert.ok(name in FLAGS, name)
})

test('without anything given all defaults are accepted', () => {
  const plain = options([])
  assert.equal(plain.store, 'etcd')
  assert.deepEqual(plain.etcdEndpoints, ['http://127.0.0.1:4001', 'http://127.0.0.1:2379'])
  assert.equal(plain.healthzPort, 0)
  assert.equal(formatIp(plain.healthzIp), '0.0.0.0')
  assert.equal(plain.stateDir, '/run/weft')
  assert.equal(plain.etcdUsername, undefined)
  assert.deepEqual(plain.publicIp, {})
})

test('a flanneld command line means the same here', () => {
  const old = options(
    ['-ip-masq', '--iface=eth1', '-iface', '10.1.1.7', '--iface-regex=^ens', '-etcd-prefix=/net/', '-v', '4'],
    { FLANNELD_PUBLIC_IP: '192.0.2.7', FLANNELD_ETCD_ENDPOINTS: 'https://10.0.0.1:2379' }
  )
  assert.equal(old.ipMasq, true)
  assert.deepEqual(old.iface, ['eth1', '10.1.1.7'])
  assert.deepEqual(old.ifaceRegex, ['^ens'])
  assert.equal(old.etcdPrefix, '/net')
  assert.equal(old.v, 4)
  assert.equal(old.publicIp[4] && formatIp(old.publicIp[4]), '192.0.2.7')
  assert.deepEqual(old.etcdEndpoints, ['https://10.0.0.1:2379'])
})

const taken: readonly (readonly [argv: readonly string[], option: keyof Options, value: unknown])[] = [
  [['--etcd-prefix=coreos.com/network'], 'etcdPrefix', 'coreos.com/network'],
  [['--etcd-prefix=/net//a/./'], 'etcdPrefix', '/net/a'],
  [['--etcd-prefix=/'], 'etcdPrefix', ''],
  [['--etcd-endpoints=a:2379,[2001:db8::1]:2379'], 'etcdEndpoints', ['http://a:2379', 'http://[2001:db8::1]:2379']],
  [['--etcd-endpoints=a:2379', '--etcd-cafile=ca.pem'], 'etcdEndpoints', ['https://a:2379']],
  [['--etcd-endpoints=a:1,HTTP://b:1'], 'etcdEndpoints', ['http://a:1', 'HTTP://b:1']],
  [['--iface='], 'iface', []],
  [['-iface', '', '--iface=eth1'], 'iface', ['eth1']],
  [['--iface-regex='], 'ifaceRegex', []],
  [['--iface-can-reach='], 'ifaceCanReach', undefined],
  [['--public-ip='], 'publicIp', {}],
  [['--etcd-username=', '--etcd-password='], 'etcdPassword', undefined],
  [['--kubeconfig-file='], 'kubeconfigFile', undefined],
  [['--kube-api-url=10.0.0.1:6443'], 'kubeApiUrl', '10.0.0.1:6443'],
  [['--healthz-ip=localhost'], 'healthzIp', parseIp('127.0.0.1')],
  [['--healthz-port=0x1f90'], 'healthzPort', 8080],
  [['--iptables-resync=+010'], 'iptablesResync', 8],
  [['-v=99'], 'v', 99]
]
for (const [argv, option, value] of taken)
  test(`${argv.join(' ')} is accepted as flanneld accepts it`, () => assert.deepEqual(options(argv)[option], value))

test("flanneld's logging flags are accepted with a warning that names what was set", () => {
  const parsed = parseOptions(['--vmodule=main=4', '-logtostderr', '--log_backtrace_at='], {
    FLANNELD_STDERRTHRESHOLD: 'INFO'
  })
  assert.ok(parsed.kind === 'run')
  const why = 'has no effect: weftd logs to standard error; --v sets how much'
  assert.deepEqual(
    parsed.warnings,
    ['--vmodule', '--logtostderr', 'FLANNELD_STDERRTHRESHOLD'].map((name) => `${name} ${why}`)
  )
})

test('what was given as a variable is called so, what was given as a flag by its name', () => {
  const mixed = options(['-iface-can-reach=192.0.2.1'], { FLANNELD_IFACE: 'eth7', WEFTD_IFACE_REGEX: '^ens' })
  assert.deepEqual(
    ['iface', 'iface-regex', 'iface-can-reach', 'public-ip'].map((name) => writtenAs(mixed.setBy, name)),
    ['FLANNELD_IFACE', 'WEFTD_IFACE_REGEX', '--iface-can-reach', '--public-ip']
  )
  const parsed = parseOptions([], { WEFTD_ETCD_CERTFILE: 'c.pem' })
  assert.ok(parsed.kind === 'wrong')
  assert.match(parsed.errors[0]?.message ?? '', /^WEFTD_ETCD_CERTFILE is set without --etcd-keyfile/)
})

test('a misspelled variable is a condition with the nearest name, and none is where all are known', () => {
  const conditionOf = (env: Record<string, string>) => {
    const parsed = parseOptions([], env)
    assert.ok(parsed.kind === 'run')
    const health = new Health(Date.now, () => undefined)
    reportUnknownVariables(health, parsed.unknownVariables)
    return health.active().find(({ code }) => code === 'VARIABLE_UNKNOWN')
  }
  const condition = conditionOf({ WEFTD_IP_MSAQ: 'true' })
  assert.equal(condition?.detail, 'the environment variable WEFTD_IP_MSAQ names no flag; the nearest is WEFTD_IP_MASQ')
  assert.match(condition?.cure ?? '', /^correct or remove WEFTD_IP_MSAQ in the environment of weftd /)
  assert.deepEqual(condition?.blocks, [])
  assert.equal(conditionOf({ WEFTD_IP_MASQ: 'true' }), undefined)
  // The prefix that all of them share does not make a name near.
  assert.equal(conditionOf({ WEFTD_OPTIONS: '-v' })?.detail, 'the environment variable WEFTD_OPTIONS names no flag')
})

test('the public address has a place for each family', () => {
  const both = options(['--public-ip=192.0.2.7', '--public-ipv6=2001:db8::7']).publicIp
  assert.deepEqual([both[4] && formatIp(both[4]), both[6] && formatIp(both[6])], ['192.0.2.7', '2001:db8::7'])
})

test('--kube-subnet-mgr is --store kubernetes', () => {
  assert.equal(options(['--kube-subnet-mgr']).store, 'kubernetes')
  assert.equal(options(['--kube-subnet-mgr', '--store=kubernetes']).store, 'kubernetes')
})

for (const [argv, message] of [
  [['--kube-subnet-mgr', '--store=etcd'], /--kube-subnet-mgr selects the Kubernetes API, --store selects etcd/],
  [['--etcd-certfile=c.pem'], /--etcd-certfile is set without --etcd-keyfile/],
  [['--etcd-keyfile=k.pem'], /--etcd-keyfile is set without --etcd-certfile/],
  [['--etcd-password=x'], /--etcd-password is set without --etcd-username/],
  [['--etcd-endpoints=http://a:1,https://b:1'], /mixes http and https/],
  [
    ['--etcd-endpoints=ftp://a:1'],
    /--etcd-endpoints is "ftp:\/\/a:1", but must be a comma-separated list .* http:\/\//
  ],
  [['--etcd-endpoints=a'], /--etcd-endpoints is "a", but must be .* or HOST:PORT/],
  [['--etcd-endpoints=a:1,https://b:1'], /mixes http and https: a:1,https:\/\/b:1/],
  [['--store=zookeeper'], /"zookeeper", but must be one of etcd, embedded, kubernetes/],
  [['--public-ip=2001:db8::1'], /--public-ip is "2001:db8::1", but must be an IPv4 address/],
  [['--public-ip=127.0.0.1'], /other nodes can send to/],
  [['--healthz-port=http'], /--healthz-port is "http", but must be a whole number from 0 to 65535/],
  [['--subnet-lease-renew-margin=0'], /from 1 to 1439/],
  [['--etcd-endpoint=http://a:1'], /the nearest is --etcd-endpoints/]
] as const) {
  test(`${argv.join(' ')} is refused with value and rule`, () => assert.match(errors(argv).join('\n'), message))
}

test('help and version are asked for in any of their forms', () => {
  for (const word of ['-h', '--help', '-help']) assert.equal(parseOptions([word, '--nonsense'], {}).kind, 'help', word)
  for (const word of ['-version', '--version', '--version=true']) assert.equal(parseOptions([word], {}).kind, 'version')
})

test('help names every flag once, under a heading, within the width', () => {
  const help = printHelp(100)
  for (const name of Object.keys(FLAGS))
    assert.equal(help.match(new RegExp(`^  --${name}( |$)`, 'gm'))?.length, 1, name)
  for (const heading of Object.values(GROUPS)) assert.ok(help.includes(`\n${heading}:\n`), heading)
  for (const line of help.slice(help.indexOf(GROUPS.store)).split('\n')) assert.ok(line.length <= 100, line)
})

test('the version line has program and version', () => assert.equal(printVersion('weftd', '1.2.3'), 'weftd 1.2.3\n'))
