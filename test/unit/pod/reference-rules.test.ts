// The names of the reference plugins' chains for a container, as iptables of a node with them prints them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hostPortChain, masqueradeChain, removeReferenceChain } from '../../../daemon/pod/reference-rules.ts'
import { podContext } from './context.ts'

const container = { network: 'test', containerId: '1234' }

test('chains have 28 characters of the hash over network and container, as the reference’s own tests say', () => {
  assert.equal(masqueradeChain(container), 'CNI-2bbe0c48b91a7d1b8a6753a8')
  assert.equal(
    hostPortChain({
      network: 'test',
      containerId:
        'icee6giejonei6sohng6ahngee7laquohquee9shiGo7fohferakah3Feiyoolu2pei7ciPhoh7shaoX6vai3vuf0ahfaeng8yohb9ceu0daez5hashee8ooYai5wa3y'
    }).length,
    28
  )
})

test('a chain that the kernel does not remove is logged, and DEL goes on', async () => {
  const warned: object[] = []
  const context = podContext({ log: { warn: (fields: object) => void warned.push(fields) } as never })
  const kernel = { ...context.kernel, removeOtherChains: () => Promise.reject(new Error('busy')) }
  await removeReferenceChain({ ...context, kernel }, 'CNI-DN-x', 'pod a/b')
  assert.deepEqual(warned, [{ chain: 'CNI-DN-x', because: 'pod a/b', reason: 'busy' }])
})
