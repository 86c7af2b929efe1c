// Reading other programs' firewalls is bounded: what the kernel is asked for, how much is kept, and that it means the
// same as what nft and iptables print.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ForeignReader } from '../../daemon/kernel/nftables/foreign-reader.ts'
import { LegacyIptables } from '../../daemon/kernel/nftables/iptables-legacy.ts'
import { listenToNftables } from '../../daemon/kernel/nftables/notification.ts'
import { foreignTable, textsOf } from '../../daemon/kernel/nftables/parse-foreign-tables.ts'
import { entriesOf } from '../../daemon/kernel/nftables/parse-own-tables.ts'
import type { ForeignRule, ForeignTable } from '../../daemon/state/foreign-chain.ts'
import { Keeper, ofWeft } from './firewall-keeper.ts'
import { ensureOwnNamespace } from './firewall-scene.ts'
import { run, until } from './run.ts'

ensureOwnNamespace(fileURLToPath(import.meta.url))

const sh = (script: string) => run('sh', ['-e'], { input: script })
const load = (command: string, input: string) => run(command, command === 'nft' ? ['-f', '-'] : [], { input })

beforeEach(() =>
  sh('nft flush ruleset; for tool in iptables-legacy ip6tables-legacy; do $tool -P FORWARD ACCEPT; $tool -F; done')
)

const many = <T>(count: number, of: (n: number) => T): readonly T[] => Array.from({ length: count }, (_, n) => of(n))
const address = (n: number): string => `100.${64 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`
const blocked = (count: number, policy = 'ACCEPT'): string =>
  `*filter\n:FORWARD ${policy} [0:0]\n${many(count, (n) => `-A FORWARD -s ${address(n)}/32 -j DROP\n`).join('')}COMMIT\n`
const set = (count: number): string => `table inet block {
  set bad { type ipv4_addr; elements = { ${many(count, address).join(', ')} }
  }
  chain other { drop
  }
  chain forward { type filter hook forward priority 0; policy accept; ip saddr @bad drop
  }
}
`

const kept = (tables: readonly ForeignTable[]): number =>
  tables.reduce((sum, { chains }) => [...chains.values()].reduce((all, { rules }) => all + rules.length, sum), 0)

test('50,000 rules and a set of 100,000 elements are read once, piece by piece, and the elements never', async () => {
  await load('iptables-nft-restore', blocked(50_000))
  await load('nft', set(100_000))
  await using keeper = new Keeper(3600, { devices: [], adminChains: [] }, [])
  const asked = () => {
    const { ruleDumps, rules, elementDumps } = keeper.firewall.asked
    return { ruleDumps, rules, elementDumps }
  }
  const own = (await keeper.firewall.read(ofWeft)).length
  assert.equal(own, 0)
  assert.deepEqual(asked(), { ruleDumps: 2, rules: 50_001, elementDumps: 0 })
  // Elements, and chains that nothing at hook forward calls, are nobody's business here; the last change is.
  await load('nft', `add element inet block bad { ${many(500, (n) => `100.127.0.${n & 255}`).join(', ')} }`)
  await sh('nft add rule inet block other counter; nft delete element inet block bad { 100.127.0.1 }')
  await sh('nft add rule inet block forward ip saddr 192.0.2.1 drop')
  await until(() => keeper.firewall.asked.rules === 50_003, { what: 'the changed chain to be read' })
  assert.deepEqual(asked(), { ruleDumps: 3, rules: 50_003, elementDumps: 0 })
  // Another program's policy is answered without reading its rules again: Weft knows what it added itself.
  await sh('iptables-nft -P FORWARD DROP')
  const accepts = async () =>
    (await keeper.firewall.read(ofWeft)).filter((object) => object.kind === 'accept' && object.effective).length
  await until(async () => (await accepts()) === 2, { what: 'both accepts' })
  assert.deepEqual(asked(), { ruleDumps: 3, rules: 50_003, elementDumps: 0 })
  const { stdout } = await run('iptables-nft', ['-S', 'FORWARD'])
  assert.match(stdout, /100\.64\.195\.79\/32 -j DROP\n(-A FORWARD .*--comment weft -j ACCEPT\n){2}$/)
})

test('what is kept of many rules is little, and of what is longer it is said', async () => {
  await load('iptables-nft-restore', blocked(8_000))
  const mixed = many(8_000, (n) => `ip saddr ${address(n)} tcp dport ${n} ${n % 2 ? 'drop' : 'accept'}\n`)
  await load('nft', `table ip guard {\nchain f { type filter hook forward priority 0;\n${mixed.join('')}}\n}`)
  using reader = new ForeignReader()
  const tables = await reader.read()
  assert.deepEqual(reader.partly, ['ip guard f'])
  assert.ok(kept(tables) < 4_100, String(kept(tables)))
})

const RULES = `
  ct state established,related accept
  ct state invalid drop
  ct state != new accept
  ct state { established, related } accept
  ct state vmap { established : accept, invalid : drop, new : jump sub }
  ip saddr 10.0.0.0/8 drop
  ip saddr != 10.1.0.0/20 drop
  ip saddr 10.0.0.1-10.0.0.9 drop
  ip saddr != 10.0.0.1-10.0.0.9 drop
  ip saddr { 10.0.0.0/8, 192.168.0.0/16, 1.2.3.4-1.2.3.9 } drop
  ip daddr @s drop
  ip6 daddr fd00::/8 reject
  ip6 saddr { fe80::/10, fd00::1 } drop
  ip6 saddr fd00:1:2:3::/61 drop
  iifname != "eth*" drop
  iifname { "a", "b" } oifname "c" drop
  iif "lo" oif != "lo" drop
  iifname vmap { "x" : jump sub, "y" : drop }
  meta mark & 0xff00 == 0x100 accept
  tcp dport { 25, 80 } counter drop
  ip protocol icmp drop
  icmp type echo-request limit rate 1/second accept
  ip saddr . tcp dport { 1.2.3.4 . 80 } drop
  fib saddr . iif oif missing drop
  meta nfproto ipv6 drop
  ct mark 5 drop
  log prefix "x" drop
  goto sub
  ip saddr 1.1.1.1 accept comment "weft"
  ip saddr 1.1.0.0/16 ip daddr 1.1.0.0/16 counter accept comment "weft"
  counter jump sub comment "weft"
  ip saddr & 255.0.0.255 == 10.0.0.1 drop
  ct state new limit rate over 10/second drop
`
const IPTABLES = [
  '-i eth0 -j DROP',
  '-i eth+ ! -s 10.0.0.1 -j REJECT',
  '-s 10.0.0.0/9 -d 1.2.3.4 -p tcp --dport 80 -j ACCEPT',
  '-m conntrack --ctstate INVALID -j DROP',
  '-m conntrack --ctstate NEW,UNTRACKED -j DROP',
  '-m addrtype --dst-type LOCAL -j DROP',
  '-m mark --mark 1 -j DROP',
  '-m physdev --physdev-is-bridged -j ACCEPT',
  '-i a ! -o b -s 1.1.1.1 ! -d 2.2.0.0/16 -j RETURN',
  '-g X'
]

/** The conditions that decide, without those of the family that nft leaves out or not. */
const meaning = ({ branches, ours, oursTo }: ForeignRule): unknown => [
  branches.map(({ conditions, verdict }) => [
    new Set(
      conditions.filter(({ kind }) => kind !== 'family' && kind !== 'other').map((one) => JSON.stringify(one, plain))
    ),
    verdict
  ]),
  ours,
  oursTo
]
const plain = (_: string, value: unknown): unknown => (typeof value === 'bigint' ? String(value) : value)

test('the rules mean what nft and iptables-nft print', async () => {
  await load(
    'nft',
    `table inet t {
  set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }
  }
  chain sub {
  }
  chain f { type filter hook forward priority 0; policy accept;
${RULES}
  }
}`
  )
  await sh(`iptables-nft -N X\n${IPTABLES.map((rule) => `iptables-nft -A FORWARD ${rule}`).join('\n')}`)
  using reader = new ForeignReader()
  const read = await reader.read()
  for (const place of ['inet t', 'ip filter'] as const) {
    const [family, table] = place.split(' ')
    const [json, text] = await Promise.all([
      run('nft', ['-sj', 'list', 'table', ...place.split(' ')]),
      run('nft', ['-sa', 'list', 'table', ...place.split(' ')])
    ])
    const listed = foreignTable(family as 'ip', String(table), entriesOf(json.stdout), textsOf(text.stdout))
    const found = read.find((one) => one.table === table && one.family === family)
    assert.equal(found?.tool, listed.tool)
    for (const [name, { rules }] of listed.chains) {
      const byHandle: ReadonlyMap<number | undefined, ForeignRule> = new Map(
        found?.chains.get(name)?.rules.map((rule) => [rule.handle, rule])
      )
      const total = [...byHandle.values()].reduce((sum, { count = 1 }) => sum + count, 0)
      assert.equal(total, rules.length, name)
      for (const rule of rules) {
        const same = byHandle.get(rule.handle)
        // A run of alike rules has the handle of its first.
        if (same !== undefined && same.count === undefined) assert.deepEqual(meaning(same), meaning(rule), rule.text)
      }
    }
  }
})

test('a table that belongs to one process alone is read, and is gone at the next comparison after that process', async () => {
  using reader = new ForeignReader()
  assert.deepEqual(await reader.read(), [])
  using _ = listenToNftables(
    () => false,
    (notified) => notified.kind === 'touched' && reader.touch(notified.touched)
  )
  // A table with the flag owner goes with its process.
  const owner = spawn('nft', ['-i'], { stdio: ['pipe', 'ignore', 'ignore'] })
  const ended = once(owner, 'exit')
  owner.stdin.write(
    'add table ip mine { flags owner; }\nadd chain ip mine f { type filter hook forward priority 0; policy drop; }\n'
  )
  await until(() => reader.due() !== undefined, { what: 'the notification' })
  await until(async () => (await reader.read()).length === 1, { what: 'the table' })
  const [table] = await reader.read()
  assert.equal(table?.chains.get('f')?.policy, 'drop')
  owner.stdin.end('quit\n')
  await ended
  // The kernel does not announce it.
  reader.touchBases()
  assert.deepEqual(await reader.read(), [])
})

test('legacy tables are read when they change, and only then, whatever the change leaves as it was', async () => {
  await load('iptables-legacy-restore', blocked(300))
  using legacy = new LegacyIptables()
  const versionAfter = async (script = '') => {
    await sh(script)
    await legacy.read()
    return legacy.version
  }
  const first = await versionAfter()
  assert.equal(await versionAfter(), first)
  assert.equal(await versionAfter('iptables-legacy -Z'), first)
  // Neither the number of rules nor their size says that these have happened.
  assert.equal(await versionAfter('iptables-legacy -P FORWARD DROP'), first + 1)
  assert.equal(await versionAfter('iptables-legacy -R FORWARD 7 -s 192.0.2.7/32 -j DROP'), first + 2)
  const [table] = await legacy.read()
  const rules = table?.chains.get('FORWARD')?.rules ?? []
  assert.ok(rules.length < 10)
  assert.equal(
    rules.reduce((sum, { count = 1 }) => sum + count, 0),
    300
  )
})
