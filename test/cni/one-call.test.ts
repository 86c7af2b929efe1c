// One call of `weft` does what a chain of five plugins does elsewhere: interface, addresses, host ports and limits,
// each as the runtime asks for it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { linesOf } from '../lab/cluster.ts'
import { recordOf } from '../lab/host-record.ts'
import { until } from '../lab/run.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'

const mappings = ['tcp', 'udp', 'sctp'].map((protocol) => ({ hostPort: 8080, containerPort: 80, protocol, hostIP: '' }))

describe('one call of weft', { skip, timeout: 300_000 }, () => {
  for (const mode of ['bridge', 'routed'] as const) {
    test(`gives address, MAC, ports of three protocols in both families and limits as asked, passes aliases by, and DEL takes all, in ${mode} mode`, async () => {
      await using at = await CniHost.start()
      const warm = await at.pod()
      const runtimeConfig = {
        ips: ['10.77.0.9/24', 'fd00:77::9'],
        mac: '0a:58:0a:4d:00:09',
        ipRanges: [[{ subnet: '10.77.0.0/24' }], [{ subnet: 'fd00:77::/64' }]],
        portMappings: mappings,
        bandwidth: { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 16_000_000, egressBurst: 800_000 },
        aliases: { net1: ['web', 'db'] }
      }
      const config = { mode, runtimeConfig }
      await at.ok('ADD', 'weft', { pod: warm, config })
      await at.ok('DEL', 'weft', { pod: warm, config })
      const record = await recordOf(at.host, { bridges: false, networks: false })
      const pod = await at.pod()
      const result = await at.ok('ADD', 'weft', { pod, config })
      assert.deepEqual(
        addressesOf(result)
          .map((address) => address.split('/')[0])
          .toSorted(),
        ['10.77.0.9', 'fd00:77::9']
      )
      const [eth0] = (await pod.ip('link', 'show', 'eth0')) as readonly { readonly address: string }[]
      assert.equal(eth0?.address, '0a:58:0a:4d:00:09')
      const ports = await linesOf(at.host, 'nft', 'list', 'maps')
      for (const protocol of ['tcp', 'udp', 'sctp'])
        for (const to of ['10.77.0.9 . 80', 'fd00:77::9 . 80'])
          assert.ok(
            ports.some((line) => line.includes(`${protocol} . 8080`) && line.includes(to)),
            `${protocol} to ${to}: ${ports.join('\n')}`
          )
      const shapers = (await linesOf(at.host, 'tc', 'qdisc', 'show')).filter((line) => /tbf|htb/.test(line))
      assert.equal(shapers.filter((line) => /rate 8Mbit|rate 16Mbit/.test(line)).length, 2, shapers.join('\n'))
      await at.ok('CHECK', 'weft', { pod, config: { ...config, prevResult: result } })
      await at.ok('DEL', 'weft', { pod, config })
      const isAsBefore = async () => (await recordOf(at.host, { bridges: false, networks: false })) === record
      await until(isAsBefore, { what: 'the host to be as before' }).catch(async () =>
        assert.equal(await recordOf(at.host, { bridges: false, networks: false }), record)
      )
    })
  }
})
