// Weft's own tables: libnftables' output to objects, changes to commands, error messages to their change.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commandsFor, transaction } from '../../../../daemon/kernel/nftables/command.ts'
import { entriesOf, tableObjects } from '../../../../daemon/kernel/nftables/parse-own-tables.ts'
import { type NftResult, NftSession } from '../../../../daemon/kernel/nftables/session.ts'
import { applySteps } from '../../../../daemon/kernel/nftables/transaction.ts'
import type { Change } from '../../../../daemon/state/difference.ts'
import type { NftChain, NftElement, NftFamily } from '../../../../daemon/state/object.ts'

const place: { readonly family: NftFamily; readonly table: string } = { family: 'inet', table: 'weft' }
const element = (port: number, set = 'ports'): NftElement => ({
  kind: 'nft-element',
  ...place,
  set,
  key: `tcp . ${port}`,
  value: '10.1.1.1 . 80'
})
const put = (object: Change['object']): Change => ({ do: 'put', object })
const step = (change: Change) => ({ change, commands: commandsFor(change, []) })

test('a listed table becomes chains with their digests, sets and elements as nft prints them', () => {
  const output = JSON.stringify({
    nftables: [
      { metainfo: { version: '1.0.6' } },
      { table: { ...place, name: 'weft', handle: 1 } },
      {
        map: {
          ...place,
          name: 'ports',
          type: ['inet_proto', 'inet_service'],
          map: 'ipv4_addr . inet_service',
          elem: [[{ concat: ['tcp', 80] }, { concat: ['10.1.1.1', 90] }]]
        }
      },
      {
        map: {
          ...place,
          name: 'devices',
          type: ['ifname', 'ipv4_addr'],
          map: 'verdict',
          elem: [[{ concat: ['cni0', '10.1.1.1'] }, { jump: { target: 'x' } }]]
        }
      },
      {
        set: {
          ...place,
          name: 'nets',
          type: 'ipv4_addr',
          flags: ['interval'],
          elem: [
            { prefix: { addr: '10.0.0.0', len: 8 } },
            { range: ['11.0.0.1', '11.0.0.3'] },
            { elem: { val: '1.2.3.4', comment: 'c' } }
          ]
        }
      },
      {
        chain: {
          ...place,
          name: 'postrouting',
          handle: 1,
          type: 'nat',
          hook: 'postrouting',
          prio: 100,
          policy: 'accept'
        }
      },
      { chain: { ...place, name: 'late', handle: 2, type: 'filter', hook: 'forward', prio: 5, policy: 'drop' } },
      { chain: { ...place, name: 'plain', handle: 3 } },
      { rule: { ...place, chain: 'postrouting', handle: 6, comment: 'weft aaaa', expr: [] } },
      { rule: { ...place, chain: 'postrouting', handle: 7, expr: [] } }
    ]
  })
  assert.deepEqual(tableObjects(entriesOf(output)), [
    {
      kind: 'nft-chain',
      ...place,
      chain: 'postrouting',
      hook: 'type nat hook postrouting priority srcnat',
      digests: ['aaaa', 'not ours (handle 7)']
    },
    {
      kind: 'nft-chain',
      ...place,
      chain: 'late',
      hook: 'type filter hook forward priority filter + 5; policy drop',
      digests: []
    },
    { kind: 'nft-chain', ...place, chain: 'plain', digests: [] },
    { kind: 'nft-set', ...place, set: 'ports', form: 'map' },
    { kind: 'nft-element', ...place, set: 'ports', key: 'tcp . 80', value: '10.1.1.1 . 90' },
    { kind: 'nft-set', ...place, set: 'devices', form: 'map' },
    { kind: 'nft-element', ...place, set: 'devices', key: '"cni0" . 10.1.1.1', value: 'jump x' },
    { kind: 'nft-set', ...place, set: 'nets', form: 'set' },
    { kind: 'nft-element', ...place, set: 'nets', key: '10.0.0.0/8' },
    { kind: 'nft-element', ...place, set: 'nets', key: '11.0.0.1-11.0.0.3' },
    { kind: 'nft-element', ...place, set: 'nets', key: '1.2.3.4', comment: 'c' }
  ])
})

test('an empty answer is an empty ruleset', () => assert.deepEqual(entriesOf('\n'), []))

test('a chain whose hook changed is created again, one whose rules changed is filled again', () => {
  const chain: NftChain = {
    kind: 'nft-chain',
    ...place,
    chain: 'c',
    hook: 'type filter hook forward priority filter',
    rules: ['accept'],
    digests: ['d']
  }
  const filled = [
    'add chain inet weft c { type filter hook forward priority filter; policy accept; }',
    'flush chain inet weft c',
    'add rule inet weft c accept comment "weft d"'
  ]
  assert.deepEqual(commandsFor({ do: 'put', object: chain, instead: { ...chain, digests: [] } }, []), [
    'add table inet weft',
    ...filled
  ])
  assert.deepEqual(
    commandsFor(
      { do: 'put', object: chain, instead: { ...chain, hook: 'type filter hook input priority filter' } },
      []
    ),
    ['add table inet weft', 'flush chain inet weft c', 'delete chain inet weft c', ...filled]
  )
})

test('removed chains are flushed before the first of them is deleted', () => {
  const chain = (name: string): Change => ({
    do: 'remove',
    object: { kind: 'nft-chain', ...place, chain: name, digests: [] }
  })
  assert.equal(
    transaction([step(chain('a')), step(chain('b'))]).text,
    'flush chain inet weft a; flush chain inet weft b; delete chain inet weft a; delete chain inet weft b; '
  )
})

/**
 * Answers like the kernel: a transaction fails as a whole, with an error at the column of each command for which
 * `refuse` has a message.
 */
const kernel =
  (refuse: (command: string) => string | undefined, log: string[] = []) =>
  async (text: string): Promise<NftResult> => {
    log.push(text)
    let at = 0
    const complaints = text.split('; ').flatMap((command) => {
      const words = refuse(command)
      const column = at
      at += command.length + 2
      return words === undefined ? [] : [{ words, at: column + 5 }]
    })
    return complaints.length === 0 ? { done: true, output: '' } : { done: false, complaints }
  }

test('refused objects are found, and the others applied in one more transaction', async () => {
  const log: string[] = []
  const changes = [1, 2, 3, 4].map((port) => put(element(port, port === 3 ? 'nowhere' : 'ports')))
  const failures = await applySteps(
    kernel(
      (command) => (command.includes('nowhere') ? 'Could not process rule: No such file or directory' : undefined),
      log
    ),
    changes.map(step)
  )
  assert.deepEqual([...failures.keys()], [changes[2]])
  assert.match(String(failures.get(changes[2] as Change)), /nowhere .*Could not process rule/)
  assert.equal(log.length, 2)
})

test('after errors without a column each object is tried alone', async () => {
  const changes = [1, 2, 3].map((port) => put(element(port)))
  const run = kernel((command) => (command.includes('tcp . 2 ') ? 'Out of memory' : undefined))
  const failures = await applySteps(async (text) => {
    const result = await run(text)
    return result.done ? result : { done: false, complaints: result.complaints.map(({ words }) => ({ words, at: -1 })) }
  }, changes.map(step))
  assert.deepEqual([...failures.keys()], [changes[1]])
})

test('removing what does not exist succeeds, an element that exists with another value is replaced, a missing one that was to be replaced is added', async () => {
  const log: string[] = []
  const changes: readonly Change[] = [
    { do: 'remove', object: element(1) },
    put(element(2)),
    { do: 'put', object: element(3), instead: element(3) }
  ]
  const missing = 'No such file or directory'
  const failures = await applySteps(
    kernel((command) => {
      if (command.startsWith('delete') && /tcp \. [13] /.test(command)) return missing
      return command.startsWith('add') && command.includes('tcp . 2 ') && log.length === 1 ? 'File exists' : undefined
    }, log),
    changes.map(step)
  )
  assert.equal(failures.size, 0)
  assert.equal(
    log.at(-1),
    'delete element inet weft ports { tcp . 2 }; add element inet weft ports { tcp . 2 : 10.1.1.1 . 80 }; add element inet weft ports { tcp . 3 : 10.1.1.1 . 80 }; '
  )
})

test('a missing libnftables is an error that names the packages', () => {
  assert.throws(() => new NftSession('libnftables-is-not-here.so.1'), {
    code: 'NFTABLES_MISSING',
    message: /libnftables-is-not-here\.so\.1/,
    cure: /libnftables1 .*nftables \(Alpine\)/
  })
})
