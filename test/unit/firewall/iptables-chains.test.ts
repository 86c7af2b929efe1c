// Weft's chains in iptables: rules and order for each family, what iptables-save prints of them, and what
// iptables-restore is to change.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { iptablesChains } from '../../../daemon/firewall/iptables-chains.ts'
import { ownFirewall } from '../../../daemon/firewall/node-chains.ts'
import {
  linesOfOurs,
  observedChain,
  restoreText,
  withoutRandomFully
} from '../../../daemon/kernel/nftables/iptables-own-text.ts'
import { difference } from '../../../daemon/state/difference.ts'
import { type IptablesChain, stateOf } from '../../../daemon/state/object.ts'
import { IPTABLES_CHAINS, mayRemove } from '../../../daemon/state/ownership.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { type PerFamily, type Prefix, parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
const cluster: PerFamily<Prefix> = { 4: prefix('10.244.0.0/16'), 6: prefix('fd00:10::/48') }
const own: PerFamily<Prefix> = { 4: prefix('10.244.1.1/24'), 6: prefix('fd00:10:0:1::/64') }
const all = { ipMasq: true, randomFully: true, forwardRules: true }

/** The chain after a restore of `text`, as iptables-save prints the table then. */
function saved(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => /^[*:]|^-A|^COMMIT/.test(line))
    .map((line) => line.replace(/^-A (\S+) (-m comment --comment "[^"]*") ((?:! )?-[sd] .*)( -j .*)$/, '-A $1 $3 $2$4'))
}

async function* each(lines: readonly string[]): AsyncGenerator<string> {
  yield* lines
}
const readBack = async (lines: readonly string[], table: keyof typeof IPTABLES_CHAINS) =>
  observedChain({ tool: 'iptables-nft', family: 'ip', table }, await linesOfOurs(each(lines), IPTABLES_CHAINS[table]))

const nothing = { exists: false, rules: [], calls: [] }
const chain = (table: string, family = 'ip'): IptablesChain =>
  iptablesChains(own, cluster, all, 'iptables-nft').find((one) => one.table === table && one.family === family) ??
  assert.fail(table)

describe('the chains', () => {
  test('have the rules of nftables’ in their order, in each family', () => {
    assert.deepEqual(chain('nat', 'ip6').rules, [
      '-m mark --mark 0x4000/0x4000 -j RETURN',
      '-m mark --mark 0x1000/0x1000 -j RETURN',
      '-s fd00:10:0:1::/64 -d fd00:10::/48 -j RETURN',
      '-s fd00:10::/48 -d fd00:10:0:1::/64 -j RETURN',
      '! -s fd00:10::/48 -d fd00:10:0:1::/64 -j RETURN',
      '-s fd00:10::/48 ! -d ff00::/8 -j MASQUERADE --random-fully',
      '! -s fd00:10::/48 -d fd00:10::/48 -j MASQUERADE --random-fully'
    ])
    assert.deepEqual(chain('filter').rules, ['-s 10.244.0.0/16 -j ACCEPT', '-d 10.244.0.0/16 -j ACCEPT'])
  })

  test('are only those that are switched on, of families that the node has', () => {
    const of = (options: typeof all, subnets = own) =>
      iptablesChains(subnets, cluster, options, 'iptables-legacy').map(({ family, table }) => `${family} ${table}`)
    assert.deepEqual(of(all), ['ip nat', 'ip filter', 'ip6 nat', 'ip6 filter'])
    assert.deepEqual(of({ ...all, ipMasq: false }), ['ip filter', 'ip6 filter'])
    assert.deepEqual(of({ ...all, forwardRules: false }, { 4: prefix('10.244.1.1/24') }), ['ip nat'])
    const plain = iptablesChains(own, cluster, { ...all, randomFully: false }, 'iptables-nft')[0]?.rules
    assert.ok(plain?.[5]?.endsWith('-j MASQUERADE'))
  })

  test('are Weft’s by their names, and nothing of nftables masquerades beside them', () => {
    assert.ok(mayRemove(chain('nat'), () => undefined))
    assert.equal(
      mayRemove({ ...chain('nat'), chain: 'KUBE-POSTROUTING' }, () => undefined),
      false
    )
    const beside = ownFirewall(own, cluster, all, 'iptables')
    assert.deepEqual(
      beside.flatMap((object) => (object.kind === 'nft-chain' ? [object.chain] : [])),
      ['exempt_mark', 'exempt_unmark']
    )
    assert.deepEqual(ownFirewall(own, cluster, { ...all, ipMasq: false }, 'iptables'), [])
  })
})

describe('iptables-restore', () => {
  const wanted = chain('nat')
  const text = restoreText({ do: 'put', object: wanted }, nothing)

  test('gets the chain and its call, and what it makes reads back without a difference', async () => {
    assert.match(
      text,
      /^\*nat\n:WEFT-POSTRTG - \[0:0\]\n-A WEFT-POSTRTG -m comment --comment "weft [0-9a-f]{16}" -m mark/
    )
    assert.match(text, /\n-A POSTROUTING -m comment --comment "weft call" -j WEFT-POSTRTG\nCOMMIT\n$/)
    const observed = await readBack(saved(text), 'nat')
    assert.deepEqual(difference(stateOf([wanted]), stateOf(observed ? [observed] : [])), [])
    assert.equal(textOf(wanted), 'iptables-nft chain ip nat WEFT-POSTRTG (7 rules, called by POSTROUTING)')
  })

  test('keeps a call that is right, and replaces all others', async () => {
    const right = '-A POSTROUTING -m comment --comment "weft call" -j WEFT-POSTRTG'
    const again = restoreText({ do: 'put', object: wanted }, { exists: true, rules: [], calls: [right] })
    assert.doesNotMatch(again, /POSTROUTING /)
    for (const calls of [
      [right, right],
      ['-A POSTROUTING -s 10.0.0.0/8 -j WEFT-POSTRTG'],
      [right, '-A mine -g WEFT-POSTRTG']
    ]) {
      const mended = restoreText({ do: 'put', object: wanted }, { exists: true, rules: [], calls }).split('\n')
      assert.deepEqual(
        mended.filter((line) => line.startsWith('-D')),
        calls.map((line) => line.replace('-A', '-D'))
      )
      assert.equal(mended.filter((line) => line === right).length, 1)
      const observed = await readBack([':WEFT-POSTRTG - [0:0]', ...calls], 'nat')
      assert.equal(observed?.isCalled, false, calls.join())
    }
  })

  test('removes calls and chain, and nothing where there is none', () => {
    const calls = ['-A POSTROUTING -m comment --comment "weft call" -j WEFT-POSTRTG']
    assert.equal(
      restoreText({ do: 'remove', object: wanted }, { exists: true, rules: [], calls }),
      `*nat\n${calls[0]?.replace('-A', '-D')}\n-F WEFT-POSTRTG\n-X WEFT-POSTRTG\nCOMMIT\n`
    )
    assert.equal(restoreText({ do: 'remove', object: wanted }, nothing), '')
  })

  test('of a version that has no --random-fully gets none', () => {
    assert.match(text, /--random-fully/)
    assert.doesNotMatch(withoutRandomFully(text), /random/)
  })
})

test('a rule of somebody else in the chain is a difference; other chains are not Weft’s', async () => {
  const wanted = chain('filter')
  const lines = saved(restoreText({ do: 'put', object: wanted }, nothing))
  const more = await readBack([...lines, '-A WEFT-FWD -j DROP', '-A FORWARD -j DROP', ':mine - [0:0]'], 'filter')
  assert.deepEqual(more?.digests.slice(0, 2), wanted.digests)
  assert.equal(more?.digests[2], 'not ours (rule 3)')
  assert.equal(more?.isCalled, true)
  assert.equal(await readBack(['*filter', ':FORWARD ACCEPT [0:0]', '-A FORWARD -j DROP'], 'filter'), undefined)
})
