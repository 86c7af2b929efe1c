// Every error code that the CNI specification reserves is returned by a real call, with a cure.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { BIN, PREFIX } from '../lab/cluster.ts'
import { until } from '../lab/run.ts'
import { type Answered, CniHost, skip } from './cni-host.ts'

describe('the reserved code', { skip, timeout: 300_000 }, () => {
  let at: CniHost
  before(async () => {
    at = await CniHost.start()
  })
  after(() => at?.[Symbol.asyncDispose]())

  /** The configuration of a pool of one address, which is taken. */
  async function exhausted(n: number) {
    const config = {
      bridge: `full${n}`,
      ipam: { ranges: [[{ subnet: `10.66.${n}.0/30`, rangeEnd: `10.66.${n}.2` }]] }
    }
    await at.ok('ADD', 'weft', { pod: await at.pod(), config })
    return config
  }

  const tests: readonly (readonly [code: number, meaning: string, call: () => Promise<Answered>])[] = [
    [1, 'a version that is not known', () => at.call('DEL', 'weft', { id: 'a', config: { cniVersion: '2.0.0' } })],
    [1, 'a verb that came later', () => at.call('GC', 'weft', { config: { cniVersion: '1.0.0' } })],
    [
      2,
      'what is asked for and not done',
      async () => at.call('ADD', 'weft', { pod: await at.pod(), config: { ipam: { type: 'dhcp' } } })
    ],
    [
      3,
      'a container that was never added, or is gone',
      async () => {
        const pod = await at.pod()
        const prevResult = await at.ok('ADD', 'weft', { pod })
        await at.ok('DEL', 'weft', { pod })
        return at.call('CHECK', 'weft', { pod, config: { prevResult } })
      }
    ],
    [4, 'variables that are missing', () => at.call('ADD', 'weft')],
    [4, 'a verb that there is not', () => at.call('UPDATE', 'weft')],
    [
      5,
      'standard input that can not be read',
      async () => {
        const variables = 'CNI_COMMAND=DEL CNI_CONTAINERID=a CNI_IFNAME=eth0'
        const { code, stdout, stderr } = await at.host.sh(`${variables} ${BIN}/weft <&-`, { check: false })
        return { exit: code, stdout, stderr, json: JSON.parse(stdout) as Answered['json'] }
      }
    ],
    [6, 'what is no JSON', () => at.call('DEL', 'weft', { id: 'a', config: '{"name":' })],
    [7, 'a value that can not be', async () => at.call('ADD', 'weft', { pod: await at.pod(), config: { mtu: 20 } })],
    [8, 'a namespace that is none', () => at.call('ADD', 'weft', { id: 'a', netns: '/dev/null' })],
    [
      8,
      'a caller in another network namespace, where nothing is made',
      async () => {
        const elsewhere = { pod: await at.pod(), under: 'unshare -n', config: { bridge: 'cell0' } }
        const answered = await at.call('ADD', 'bridge', elsewhere)
        assert.ok(!(await at.links()).includes('cell0'))
        // Nothing of the attachment that has the same name here is removed from there.
        const here = { ...elsewhere, under: '' }
        await at.ok('ADD', 'bridge', here)
        const links = await at.links()
        await at.ok('DEL', 'bridge', elsewhere)
        assert.deepEqual(await at.links(), links)
        await at.ok('DEL', 'bridge', here)
        return answered
      }
    ],
    [
      11,
      'what may be better soon: a pool without a free address',
      async () => at.call('ADD', 'weft', { pod: await at.pod(), config: await exhausted(1) })
    ],
    [50, 'a STATUS while no ADD can be served', async () => at.call('STATUS', 'weft', { config: await exhausted(2) })],
    [
      51,
      'a STATUS while pods that run may be cut off: another node has our subnet',
      async () => {
        const { etcd } = at.cluster
        const [[key, value] = assert.fail('no lease')] = await etcd.list(`${PREFIX}/subnets/`)
        await etcd.put(key, value.replace(at.host.address, at.host.address.replace(/\d+$/, '99')))
        const status = async () => {
          const answered = await at.call('STATUS', 'weft')
          return answered.exit !== 0 && answered
        }
        return await until(status, { what: 'STATUS to notice' })
      }
    ]
  ]
  for (const [code, meaning, call] of tests) {
    test(`${code} is for ${meaning}`, async () => {
      const { exit, stdout, json } = await call()
      assert.deepEqual([exit, json.code], [1, code], stdout)
      assert.ok(json.msg !== '' && (json.details || json.msg?.includes('Cure: ')), stdout)
    })
  }
})
