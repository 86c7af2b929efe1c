// The bytes of nf_tables' elements: keys and values in the kernel's encoding; words of unknown types are not encoded.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { elementBatch } from '../../../../daemon/kernel/nftables/elements.ts'
import type { Change } from '../../../../daemon/state/difference.ts'
import type { NftElement } from '../../../../daemon/state/object.ts'

const element = (key: string, value?: string): NftElement => ({
  ...{ kind: 'nft-element', family: 'inet', table: 'weft', set: 'some', key },
  ...(value !== undefined && { value })
})
const put = (object: NftElement): Change => ({ do: 'put', object })
/** The messages between the two marks, in hex. */
const contents = (changes: readonly Change[]): readonly string[] | undefined =>
  elementBatch(changes)
    ?.flatMap((bytes) => readMessages(bytes))
    .slice(1, -1)
    .map(({ body }) => body.toString('hex'))

test('the parts of a concatenation begin at multiples of four octets, a key alone has its own length', () => {
  const [at = ''] = contents([put(element('192.0.2.1 . tcp . 8080', '10.244.1.2 . 80'))]) ?? []
  assert.ok(at.includes('c0000201060000001f900000'), at)
  assert.ok(at.includes('0af4010200500000'), at)
  const [v6 = ''] = contents([put(element('udp . 53', 'fd00::2 . 53'))]) ?? []
  assert.ok(v6.includes('1100000000350000'), v6)
  assert.ok(v6.includes('fd00000000000000000000000000000200350000'), v6)
  const [source = ''] = contents([put(element('"vetha" . 02:00:00:00:00:0a'))]) ?? []
  assert.ok(source.includes(`${'7665746861'.padEnd(32, '0')}02000000000a0000`), source)
})

test('a replaced element is deleted first, in the same transaction', () => {
  const [before, after] = [element('tcp . 80', '10.0.0.1 . 1'), element('tcp . 80', '10.0.0.2 . 1')]
  const types = elementBatch([{ do: 'put', object: after, instead: before }])?.map(
    (bytes) => readMessages(bytes)[0]?.type
  )
  assert.deepEqual(types, [16, 0xa0e, 0xa0c, 17])
})

test('a word of an unknown type, or an object that is no element, is left to libnftables', () => {
  const words = [
    '"eth*"',
    '65536',
    'icmp',
    'constructor',
    '10.0.0.0/8',
    '10.0.0.1-10.0.0.9',
    '"a-name-of-16-oct"',
    '',
    'tcp . '
  ]
  for (const word of words) assert.equal(contents([put(element(word))]), undefined, word)
  assert.equal(contents([put(element('tcp . 80', 'jump other'))]), undefined)
  const chain: Change = {
    ...{ do: 'put', object: { kind: 'nft-chain', family: 'inet', table: 'weft', chain: 'one', digests: [] } }
  }
  assert.equal(contents([put(element('tcp . 80')), chain]), undefined)
})

test('any text yields well-formed messages or none', () => {
  const word = fc.oneof(fc.string(), fc.constantFrom('tcp', '"eth0"', '::1', '1.2.3.4', '80', '02:00:00:00:00:01'))
  const text = fc.array(word, { minLength: 1, maxLength: 4 }).map((words) => words.join(' . '))
  fc.assert(
    fc.property(text, fc.option(text, { nil: undefined }), (key, value) => {
      const found = contents([put(element(key, value))])
      assert.ok(found === undefined || found.length === 1)
    })
  )
})
