// The firewall against the real kernel: what is applied reads back equal, other programs' changes are reported with the
// program and repaired, and pods get through their drops.
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Firewall } from '../../daemon/kernel/nftables/firewall.ts'
import { listenToNftables } from '../../daemon/kernel/nftables/notification.ts'
import { difference } from '../../daemon/state/difference.ts'
import { type KernelObject, type NftElement, stateOf } from '../../daemon/state/object.ts'
import { bring, Keeper, ofWeft, own } from './firewall-keeper.ts'
import { ensureOwnNamespace, Neighbour } from './firewall-scene.ts'
import { run, until } from './run.ts'

ensureOwnNamespace(fileURLToPath(import.meta.url))

const inetMap: readonly KernelObject[] = [
  {
    kind: 'nft-set',
    family: 'inet',
    table: 'weft',
    set: 'ports',
    form: 'map',
    declaration: 'type inet_proto . inet_service : ipv4_addr . inet_service'
  }
]
const element = (port: number, to = '10.244.1.2'): NftElement => ({
  kind: 'nft-element',
  family: 'inet',
  table: 'weft',
  set: 'ports',
  key: `tcp . ${port}`,
  value: `${to} . 80`
})

const sh = (script: string) => run('sh', ['-e'], { input: script })
const clean = () =>
  sh(`nft flush ruleset
for tool in iptables-legacy ip6tables-legacy; do
  $tool -P FORWARD ACCEPT; $tool -F; $tool -X
done`)

beforeEach(clean)

describe('applying and reading back', () => {
  test('what was applied reads back without a difference, and a second start finds nothing to do', async () => {
    const desired = [...own, ...inetMap, ...[80, 81, 82].map((port) => element(port))]
    {
      await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
      assert.equal((await bring(firewall, desired)).length, desired.length)
      assert.deepEqual(await bring(firewall, desired), [])
    }
    await using again = new Firewall({ iptablesResyncSeconds: 60 })
    assert.deepEqual(await bring(again, desired), [])
  })

  test('what is no longer desired is removed, chains that jump to each other included', async () => {
    await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
    const chain = (name: string, rules: readonly string[]): KernelObject => ({
      kind: 'nft-chain',
      family: 'inet',
      table: 'weft',
      chain: name,
      rules,
      digests: rules.map((_, at) => `${name}${at}`)
    })
    const called = [chain('inner', ['counter']), chain('outer', ['jump inner'])]
    await bring(firewall, [...own, ...inetMap, element(80), ...called])
    await bring(firewall, own)
    assert.equal(stateOf(await firewall.read(ofWeft)).size, own.length)
    await bring(firewall, [])
    assert.deepEqual(await firewall.read(ofWeft), [])
  })

  test('one refused object does not stop the others, and its error has the words of nft', async () => {
    await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
    await bring(firewall, inetMap)
    const lost: NftElement = { ...element(90), set: 'nowhere' }
    const outcomes = await firewall.apply([element(80), lost, element(81)].map((object) => ({ do: 'put', object })))
    assert.deepEqual(
      outcomes.map(({ error }) => error === undefined),
      [true, false, true]
    )
    assert.match(
      String(outcomes[1]?.error?.message),
      /refused to set up element inet weft nowhere .*No such file or directory/
    )
    assert.equal((await firewall.read(ofWeft)).length, 3)
  })

  test('in a long transaction, too, only the bad objects fail', async () => {
    await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
    await bring(firewall, inetMap)
    const changes = Array.from({ length: 300 }, (_, at) => ({
      do: 'put' as const,
      object: at % 100 === 50 ? { ...element(at), set: 'nowhere' } : element(at)
    }))
    const outcomes = await firewall.apply(changes)
    assert.deepEqual(
      outcomes.flatMap(({ error }, at) => (error ? [at] : [])),
      [50, 150, 250]
    )
    assert.equal((await firewall.read(ofWeft)).length, 298)
  })

  test('removing what does not exist succeeds, and an element that has another value is replaced', async () => {
    await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
    await bring(firewall, [...inetMap, element(80)])
    const gone = own.find((object) => object.kind === 'nft-chain') ?? assert.fail('no chain')
    const outcomes = await firewall.apply([
      { do: 'remove', object: element(99) },
      { do: 'put', object: element(80, '10.244.1.9') },
      { do: 'remove', object: { ...gone, chain: 'never' } }
    ])
    assert.deepEqual(
      outcomes.map(({ error }) => error?.message),
      [undefined, undefined, undefined]
    )
    assert.deepEqual(
      difference(stateOf([...inetMap, element(80, '10.244.1.9')]), stateOf(await firewall.read(ofWeft))),
      []
    )
  })

  test('calls that arrive together share a transaction', async () => {
    await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
    await bring(firewall, inetMap)
    const transactions: string[] = []
    using _ = listenToNftables(
      () => false,
      (notified) => transactions.push(notified.kind === 'touched' ? [...notified.touched.tables].join() : notified.why)
    )
    const all = await Promise.all(
      [80, 81, 82, 83].map((port) => firewall.apply([{ do: 'put', object: element(port) }]))
    )
    assert.deepEqual(
      all.map((outcomes) => outcomes.length),
      [1, 1, 1, 1]
    )
    await run('nft', ['add', 'table', 'ip', 'last'])
    await until(() => transactions.includes('ip last'), { what: 'the last notification' })
    assert.deepEqual(transactions, ['inet weft', 'ip last'])
    assert.equal((await firewall.read(ofWeft)).length, 5)
  })
})

describe('another program', () => {
  test('a flushed ruleset is reported with the program and restored', async () => {
    await using keeper = new Keeper()
    await until(async () => (await run('nft', ['list', 'ruleset'])).stdout.includes('masquerade'), {
      what: 'the first set-up'
    })
    await run('nft', ['flush', 'ruleset'])
    await until(async () => (await run('nft', ['list', 'ruleset'])).stdout.includes('masquerade'), {
      what: 'the repair'
    })
    const removal = keeper.seen.find((change) => change.kind === 'changed' && change.object === undefined)
    assert.equal(removal?.by?.name, 'nft')
    assert.equal(removal?.by?.self, false)
    assert.deepEqual(await bring(keeper.firewall, own), [])
  })

  for (const [what, script] of [
    ['deleted', 'delete rule inet weft postrouting handle'],
    ['replaced', 'replace rule inet weft postrouting handle']
  ] as const) {
    test(`a rule that was ${what} is put back in its place`, async () => {
      await using keeper = new Keeper()
      await until(() => run('nft', ['list', 'chain', 'inet', 'weft', 'postrouting']), { what: 'the chain' })
      const right = (await run('nft', ['list', 'chain', 'inet', 'weft', 'postrouting'])).stdout
      const handle = /return comment .* # handle (\d+)/.exec(
        (await run('nft', ['-a', 'list', 'chain', 'inet', 'weft', 'postrouting'])).stdout
      )?.[1]
      await run('nft', [...script.split(' '), String(handle), ...(what === 'replaced' ? ['counter'] : [])])
      await until(() => keeper.seen.length > 0, { what: 'a notification' })
      await until(async () => (await run('nft', ['list', 'chain', 'inet', 'weft', 'postrouting'])).stdout === right, {
        what: 'the repair'
      })
      assert.equal(keeper.seen[0]?.by?.name, 'nft')
    })
  }

  test('our own transactions are not reported', async () => {
    await using keeper = new Keeper()
    await until(() => run('nft', ['list', 'chain', 'inet', 'weft', 'forward']), { what: 'the chain' })
    await keeper.firewall.apply(inetMap.map((object) => ({ do: 'put', object })))
    for (const port of [80, 81]) await keeper.firewall.apply([{ do: 'put', object: element(port) }])
    await keeper.firewall.apply([{ do: 'remove', object: element(80) }])
    // A later change of another program arrives after ours, if ours was reported.
    await run('nft', ['delete', 'element', 'inet', 'weft', 'ports', '{ tcp . 81 }'])
    await until(() => keeper.seen.length > 0, { what: 'the other change' })
    assert.deepEqual(
      keeper.seen.map((change) => change.kind === 'changed' && change.key),
      ['nft element inet weft ports tcp . 81']
    )
  })
})

describe('packets through this host', () => {
  let a: Neighbour
  let b: Neighbour
  let world: Neighbour

  before(async () => {
    await sh(
      'ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
    )
    a = await Neighbour.join('pod-a', [
      { here: '10.244.1.1/25', there: '10.244.1.2/25' },
      { here: 'fd00:10:0:1::1/80', there: 'fd00:10:0:1::2/80' }
    ])
    b = await Neighbour.join('pod-b', [
      { here: '10.244.1.129/25', there: '10.244.1.130/25' },
      { here: 'fd00:10:0:1:1::1/80', there: 'fd00:10:0:1:1::2/80' }
    ])
    world = await Neighbour.join('world', [
      { here: '192.0.2.1/24', there: '192.0.2.2/24' },
      { here: '2001:db8::1/64', there: '2001:db8::2/64' }
    ])
  })
  after(() => {
    for (const neighbour of [a, b, world]) neighbour[Symbol.dispose]()
  })

  const both = async () => (await a.reaches('10.244.1.130')) && (await a.reaches('fd00:10:0:1:1::2'))
  const none = async () => !(await a.reaches('10.244.1.130')) && !(await a.reaches('fd00:10:0:1:1::2'))

  const drops = [
    {
      who: 'a FORWARD policy DROP of iptables-nft',
      script: 'iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP',
      undo: 'iptables-nft -F FORWARD; ip6tables-nft -F FORWARD'
    },
    {
      who: "Docker's chains made with iptables-nft",
      script: `for t in iptables-nft ip6tables-nft; do $t -P FORWARD DROP; $t -N DOCKER-USER; $t -A DOCKER-USER -j RETURN; $t -A FORWARD -j DOCKER-USER
$t -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; done`,
      undo: 'for t in iptables-nft ip6tables-nft; do $t -F DOCKER-USER; $t -A DOCKER-USER -j RETURN; done'
    },
    {
      who: 'a dropping base chain of nft',
      script: `nft -f - <<'X'
table inet guard {
  chain forward { type filter hook forward priority filter + 10; policy accept; ct state invalid drop; tcp dport 25 drop; reject with icmpx admin-prohibited; }
}
X`,
      undo: 'nft flush chain inet guard forward; nft add rule inet guard forward drop'
    },
    {
      who: 'a drop behind a jump, in a chain before ours',
      script: `nft -f - <<'X'
table inet guard {
  chain zones { meta l4proto { icmp, ipv6-icmp } drop; }
  chain forward { type filter hook forward priority -200; policy accept; iifname "pod-a" jump zones; }
}
X`,
      undo: 'nft flush chain inet guard forward; nft add rule inet guard forward jump zones'
    }
  ] as const

  for (const { who, script, undo } of drops) {
    test(`${who} stops pods, and no longer with the accept in it, also after another program removed it`, async () => {
      await sh(script)
      assert.ok(await none(), 'the drop has no effect')
      await using keeper = new Keeper()
      await until(both, { what: 'pods to reach each other' })
      assert.ok(keeper.reasons.length > 0)
      await sh(undo)
      await until(() => keeper.seen.some((change) => change.kind === 'changed' && change.object === undefined), {
        what: 'the loss to be told'
      })
      await until(both, { what: 'pods to reach each other again' })
    })
  }

  test('a FORWARD policy DROP of iptables-legacy stops pods, and no longer with the accept in it, also after a flush', async () => {
    await sh('iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP')
    assert.ok(await none(), 'the drop has no effect')
    await using keeper = new Keeper(1)
    await until(both, { what: 'pods to reach each other' })
    await sh('iptables-legacy -F; ip6tables-legacy -F')
    await until(both, { what: 'pods to reach each other again' })
    const saved = (await run('iptables-legacy-save', [])).stdout
    assert.match(saved, /-A FORWARD -s 10\.244\.0\.0\/16 -m comment --comment weft -j ACCEPT/)
    assert.ok(keeper.reasons.every((reason) => reason.includes('iptables-legacy')))
  })

  test('accepts are removed with their reason, from every kind of chain', async () => {
    await sh('iptables-legacy -P FORWARD DROP; iptables-nft -P FORWARD DROP')
    await using keeper = new Keeper(1)
    const count = async () =>
      (await run('iptables-legacy-save', [])).stdout.split('comment weft').length +
      (await run('iptables-nft-save', [])).stdout.split('comment weft').length -
      2
    await until(async () => (await count()) === 4, { what: 'four accepts' })
    await sh('iptables-legacy -P FORWARD ACCEPT; iptables-nft -P FORWARD ACCEPT')
    await until(async () => (await count()) === 0, { what: 'no accept' })
    assert.deepEqual(keeper.reasons, [])
  })

  test('iptables-nft prints and deletes the accepts as its own rules', async () => {
    await sh('iptables-nft -P FORWARD DROP')
    {
      await using _ = new Keeper()
      await until(() => a.reaches('10.244.1.130'), { what: 'IPv4 to pass' })
    }
    const listed = (await run('iptables-nft', ['-S', 'FORWARD'])).stdout
    assert.match(listed, /^-A FORWARD -s 10\.244\.0\.0\/16 -m comment --comment weft -j ACCEPT$/m)
    await run('iptables-nft', [
      '-D',
      'FORWARD',
      '-s',
      '10.244.0.0/16',
      '-m',
      'comment',
      '--comment',
      'weft',
      '-j',
      'ACCEPT'
    ])
    assert.doesNotMatch((await run('iptables-nft', ['-S', 'FORWARD'])).stdout, /-s 10\.244/)
  })

  test('what a policy engine and the administrator drop on purpose stays dropped', async () => {
    await sh(`iptables-nft -P FORWARD DROP; iptables-nft -N KUBE-ROUTER-FORWARD; iptables-nft -A KUBE-ROUTER-FORWARD -s 10.244.1.2 -j REJECT
iptables-nft -A FORWARD -j KUBE-ROUTER-FORWARD`)
    await using keeper = new Keeper()
    await until(() => b.reaches('192.0.2.2'), { what: 'pods to reach the world' })
    assert.equal(await a.reaches('10.244.1.130'), false)
    // The administrator appends a rule behind our accept: it still counts.
    await sh('iptables-nft -A FORWARD -s 10.244.1.130 -p icmp --icmp-type echo-request -j DROP')
    await until(async () => !(await b.reaches('192.0.2.2')), { what: 'the administrator to be obeyed' })
    assert.ok(keeper.reasons.length > 0)
  })

  test('other hosts see the host’s address, pods see each other’s', async () => {
    await using _ = new Keeper()
    await until(() => run('nft', ['list', 'chain', 'inet', 'weft', 'postrouting']), { what: 'the chain' })
    for (const [from, to, seen] of [
      [a, world, { 4: '192.0.2.2', 6: '2001:db8::2', source: ['192.0.2.1', '2001:db8::1'] }],
      [a, b, { 4: '10.244.1.130', 6: 'fd00:10:0:1:1::2', source: ['10.244.1.2', 'fd00:10:0:1::2'] }]
    ] as const) {
      await to.exec('nft', ['-f', '-'], {
        input: `flush ruleset
table inet seen {
  set four { type ipv4_addr; flags dynamic; size 16; }
  set six { type ipv6_addr; flags dynamic; size 16; }
  chain in {
    type filter hook input priority 0
    icmp type echo-request add @four { ip saddr }
    icmpv6 type echo-request add @six { ip6 saddr }
  }
}
`
      })
      assert.ok((await from.reaches(seen[4])) && (await from.reaches(seen[6])))
      const listed = (await to.exec('nft', ['list', 'ruleset'])).stdout
      const sources = [...listed.matchAll(/elements = \{ ([^ ]+) \}/g)].map(([, source]) => source)
      assert.deepEqual(sources, seen.source)
    }
  })
})
