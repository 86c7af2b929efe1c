// Weft's chains in iptables against the real kernel: what is applied reads back equal, whatever others do to it is
// noticed, no restart adds anything, and the iptables in use is found as Kubernetes' wrappers find it.
import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { iptablesChains } from '../../daemon/firewall/iptables-chains.ts'
import { Firewall } from '../../daemon/kernel/nftables/firewall.ts'
import { OwnIptables } from '../../daemon/kernel/nftables/iptables-own.ts'
import { missingNat } from '../../daemon/kernel/nftables/nat-trial.ts'
import type { FirewallChange } from '../../daemon/kernel/nftables/port.ts'
import { NftSession } from '../../daemon/kernel/nftables/session.ts'
import { difference } from '../../daemon/state/difference.ts'
import { type IptablesTool, stateOf } from '../../daemon/state/object.ts'
import { bring, cluster, ofWeft, own, subnet } from './firewall-keeper.ts'
import { ensureOwnNamespace } from './firewall-scene.ts'
import { run, until } from './run.ts'

ensureOwnNamespace(fileURLToPath(import.meta.url))

const TOOLS = ['iptables-nft', 'iptables-legacy'] as const
const options = { ipMasq: true, randomFully: true, forwardRules: true }
const chains = (tool: IptablesTool) => iptablesChains(subnet, cluster, options, tool)
const open = () => new Firewall({ iptablesResyncSeconds: 3_600 })

const sh = (script: string) => run('sh', ['-e'], { input: script })
/** Both families' chains and rules, in each table, without policies; legacy tables are listed in any order. */
async function saved(tool: IptablesTool): Promise<readonly string[]> {
  const each = await Promise.all(
    [tool, tool.replace('ip', 'ip6')].flatMap((name) =>
      ['filter', 'nat'].map((table) => run(`${name}-save`, ['-t', table]))
    )
  )
  return each.flatMap(({ stdout }) => stdout.split('\n').filter((line) => /^(-A|:\S+ -)/.test(line)))
}
const ofOurs = async (tool: IptablesTool) => (await saved(tool)).filter((line) => line.includes('WEFT-'))

beforeEach(() =>
  sh(`nft flush ruleset
for tool in iptables-legacy ip6tables-legacy; do
  for table in filter nat mangle; do $tool -t $table -F; $tool -t $table -X; done; $tool -P FORWARD ACCEPT
done`)
)

/** What the firewall publishes while `change` runs and until `isDone`. */
async function during(firewall: Firewall, change: () => Promise<unknown>, isDone: (seen: FirewallChange[]) => boolean) {
  const end = new AbortController()
  const seen: FirewallChange[] = []
  const reading = (async () => {
    for await (const one of firewall.changes(end.signal)) seen.push(one)
  })()
  await change()
  await until(() => isDone(seen), { what: 'the firewall to notice' })
  end.abort()
  await reading
  return seen
}

for (const tool of TOOLS) {
  describe(tool, () => {
    test('what was applied reads back without a difference; its rules are flannel’s, in their order', async () => {
      await using firewall = open()
      assert.equal((await bring(firewall, chains(tool))).length, 4)
      assert.deepEqual(await bring(firewall, chains(tool)), [])
      await using again = open()
      assert.deepEqual(await bring(again, chains(tool)), [])
      const rules = (await ofOurs(tool)).map((line) => line.replace(/-m comment --comment "weft [0-9a-f]{16}" /, ''))
      assert.deepEqual(rules.slice(0, 12), [
        ':WEFT-FWD - [0:0]',
        '-A FORWARD -m comment --comment "weft call" -j WEFT-FWD',
        '-A WEFT-FWD -s 10.244.0.0/16 -j ACCEPT',
        '-A WEFT-FWD -d 10.244.0.0/16 -j ACCEPT',
        ':WEFT-POSTRTG - [0:0]',
        '-A POSTROUTING -m comment --comment "weft call" -j WEFT-POSTRTG',
        '-A WEFT-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN',
        '-A WEFT-POSTRTG -m mark --mark 0x1000/0x1000 -j RETURN',
        '-A WEFT-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN',
        '-A WEFT-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN',
        '-A WEFT-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN',
        '-A WEFT-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully'
      ])
    })

    test('no rule is there twice after many restarts, and others’ rules stay as they are', async () => {
      await sh(`${tool} -t nat -A POSTROUTING -o eth9 -j MASQUERADE; ${tool} -A FORWARD -i eth9 -j DROP`)
      const before = await saved(tool)
      {
        await using firewall = open()
        await bring(firewall, chains(tool))
      }
      const once = await saved(tool)
      // A thousand of them take minutes.
      const restarts = process.env.WEFT_LONG === undefined ? 30 : 1_000
      for (let n = 1; n <= restarts; n++) {
        using iptables = new OwnIptables()
        const found = stateOf(await iptables.read())
        assert.deepEqual(difference(stateOf(chains(tool)), found), [], `restart ${n}`)
        // Every tenth was killed: the next one writes again what it has written.
        if (n % 10 !== 0) continue
        const again = chains(tool).map((object) => ({ do: 'put' as const, object }))
        assert.equal((await iptables.apply(again)).size, 0, `restart ${n}`)
      }
      assert.deepEqual(await saved(tool), once)
      await using firewall = open()
      await bring(firewall, [])
      assert.deepEqual(await saved(tool), before)
    })

    test('a switch to nftables and back leaves nothing of the other', async () => {
      await using firewall = open()
      await bring(firewall, chains(tool))
      await bring(firewall, own)
      assert.deepEqual(await ofOurs(tool), [])
      await bring(firewall, chains(tool))
      const left = (await firewall.read(ofWeft)).filter(({ kind }) => kind !== 'iptables-chain')
      assert.deepEqual(left, [])
    })

    test('a chain that is flushed, called twice, for some packets only, or not at all, is as before', async () => {
      await using firewall = open()
      await bring(firewall, chains(tool))
      const whole = await ofOurs(tool)
      for (const break_ of [
        '-t nat -F WEFT-POSTRTG',
        '-t nat -A POSTROUTING -m comment --comment "weft call" -j WEFT-POSTRTG',
        '-t nat -A POSTROUTING -s 10.0.0.0/8 -j WEFT-POSTRTG',
        '-t nat -D POSTROUTING -m comment --comment "weft call" -j WEFT-POSTRTG',
        '-t nat -A WEFT-POSTRTG -j ACCEPT',
        '-t filter -F'
      ]) {
        const isOurs = (seen: FirewallChange[]) =>
          seen.some((change) => change.kind === 'changed' && change.key.startsWith('iptables chain'))
        const watch = new AbortController()
        // For who has chains there: legacy tables are looked at only then.
        const tools = firewall.iptables(watch.signal)[Symbol.asyncIterator]()
        await tools.next()
        await during(firewall, () => sh(`${tool} ${break_}`), isOurs)
        watch.abort()
        assert.equal((await bring(firewall, chains(tool))).length, 1, break_)
        assert.deepEqual((await ofOurs(tool)).sort(), whole.toSorted(), break_)
      }
    })
  })
}

test('what the kernel refuses of NAT in nftables is told apart: masquerading, or all of it', async () => {
  const found = () => missingNat(() => new NftSession())
  assert.equal(await found(), undefined)
  // In place of a kernel without the modules: another chain of the name is in the way.
  await sh('nft flush ruleset; nft add table inet try; nft add chain inet try c')
  assert.equal((await found())?.what, 'masquerade')
  await sh('nft flush ruleset; for f in inet ip; do nft add table $f try; nft add chain $f try c; done')
  const { what, why } = (await found()) ?? {}
  assert.equal(what, 'nat')
  assert.match(String(why), /Operation not supported|File exists/)
})

describe('the iptables in use', () => {
  async function first(): Promise<IptablesTool | undefined> {
    await using firewall = open()
    const end = new AbortController()
    for await (const tool of firewall.iptables(end.signal)) return tool
    return undefined
  }

  test('is nft where nothing is, and legacy with more legacy rules than others', async () => {
    assert.equal(await first(), 'iptables-nft')
    await sh('iptables-legacy -A FORWARD -i eth8 -j DROP; iptables-legacy -N some; iptables-legacy -A some -j RETURN')
    assert.equal(await first(), 'iptables-legacy')
    await sh('for n in 1 2 3; do iptables-nft -A FORWARD -i eth$n -j DROP; done')
    assert.equal(await first(), 'iptables-nft')
  })

  test('does not depend on Weft’s own rules', async () => {
    await sh('iptables-nft -A FORWARD -i eth8 -j DROP')
    await using firewall = open()
    await bring(firewall, chains('iptables-legacy'))
    assert.equal(await first(), 'iptables-nft')
  })

  test('is that in which kubelet made its chains, and changes with them', async () => {
    await sh('for n in 1 2 3; do iptables-nft -A FORWARD -i eth$n -j DROP; done')
    await sh('iptables-legacy -t mangle -N KUBE-KUBELET-CANARY')
    await using firewall = open()
    const end = new AbortController()
    const tools = firewall.iptables(end.signal)[Symbol.asyncIterator]()
    assert.equal((await tools.next()).value, 'iptables-legacy')
    await sh('ip6tables-nft -t mangle -N KUBE-IPTABLES-HINT')
    assert.equal((await tools.next()).value, 'iptables-nft')
    end.abort()
    assert.equal((await tools.next()).done, true)
  })

  test('asks for no process, and makes no legacy table, where iptables has nothing of Weft', async () => {
    await using firewall = open()
    assert.deepEqual(await firewall.read(ofWeft), [])
    const made = await sh('cat /proc/net/ip_tables_names || true')
    await firewall.read(ofWeft)
    assert.equal((await sh('cat /proc/net/ip_tables_names || true')).stdout, made.stdout)
  })
})
