// Calls from another network namespace than weftd's: refused, harmless for DEL, served where the plugin makes nothing
// in the host's.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CallHistory } from '../../../daemon/cni/call-history.ts'
import { cniCalls } from '../../../daemon/cni/calls.ts'
import { podContext } from '../pod/context.ts'

const call = async (verb: string, plugin: string, namespace: string | undefined) => {
  const context = podContext({
    namespace: 'net:[1]',
    host: {
      observed: new Map(),
      want: async () => assert.fail('changed the host'),
      wantAll: async () => assert.fail('changed the host'),
      keep: () => assert.fail('changed the host'),
      discard: async () => assert.fail('changed the host'),
      impose: async () => assert.fail('changed the host'),
      desired: new Map()
    }
  })
  const env = { CNI_COMMAND: verb, CNI_CONTAINERID: 'c1', CNI_NETNS: '/run/netns/c1', CNI_IFNAME: 'eth0' }
  const reply = await cniCalls(
    context,
    new CallHistory(Date.now)
  )({
    ...{ v: 1, plugin, env, deadlineMs: 1_000, did: [] },
    stdin: '{"cniVersion":"1.1.0","name":"n","ipam":{"type":"static","addresses":[{"address":"10.0.0.2/24"}]}}',
    ...(namespace === undefined ? {} : { namespace })
  })
  return 'exit' in reply ? reply : assert.fail('a delegate was to be run')
}

describe('a call from another network namespace', () => {
  for (const plugin of ['weft', 'bridge', 'ptp', 'macvlan', 'portmap', 'bandwidth', 'firewall', 'tuning', 'flannel'])
    test(`of ${plugin} is refused, and its DEL does nothing`, async () => {
      for (const verb of ['ADD', 'CHECK', 'GC', 'STATUS']) {
        const { exit, stdout } = await call(verb, plugin, 'net:[2]')
        assert.deepEqual([exit, JSON.parse(stdout).code], [1, 8], verb)
        assert.match(JSON.parse(stdout).msg, /called in the network namespace net:\[2\], and weftd runs in net:\[1\]/)
      }
      const { exit, stdout, stderr } = await call('DEL', plugin, 'net:[2]')
      assert.deepEqual([exit, stdout], [0, ''])
      assert.match(stderr, /net:\[2\].*nothing was removed/)
    })

  test('of a plugin that makes nothing on the host is served', async () => {
    assert.match((await call('ADD', 'static', 'net:[2]')).stdout, /10\.0\.0\.2\/24/)
    assert.equal((await call('ADD', 'loopback', 'net:[2]')).exit, 0)
  })

  test('whose executable is too old to say so is served as before', async () => {
    assert.match((await call('ADD', 'static', undefined)).stdout, /10\.0\.0\.2\/24/)
  })
})
