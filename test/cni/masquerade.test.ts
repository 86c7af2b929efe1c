// `ipMasq` of weft for pods of the node's own subnet: with which address they are seen outside, whatever --ip-masq
// says, and after a restart.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Json } from '../lab/cni.ts'
import { until } from '../lab/run.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'

const script = (name: string) => fileURLToPath(new URL(`../lab/${name}`, import.meta.url))

for (const [args, isUsual] of [
  [['--ip-masq'], true],
  [[], false]
] as const)
  for (const mode of ['bridge', 'routed'])
    test(`ipMasq decides for a pod, in mode ${mode}, where weftd runs ${isUsual ? 'with' : 'without'} --ip-masq`, {
      skip,
      timeout: 300_000
    }, async () => {
      await using at = await CniHost.start(args)
      const outside = at.cluster.lab.router
      await outside.exec('ip', ['route', 'replace', '10.244.0.0/16', 'via', at.host.address])
      const server = outside.spawn(process.execPath, [script('echo-server.ts'), 'server', '8080'])
      await until(() => server.text().includes('listening'), { what: 'the server outside' })
      const connected = async (ipMasq: boolean | undefined) => {
        const pod = await at.pod()
        const config: Json = { mode, ...(ipMasq === undefined ? {} : { ipMasq }) }
        const result = await at.ok('ADD', 'weft', { config, pod })
        const address = String(addressesOf(result)[0]).split('/')[0]
        const seen = (ipMasq ?? isUsual) ? at.host.address : address
        return { pod, address, seen, call: { config: { ...config, prevResult: result }, pod } }
      }
      const pods = [await connected(undefined), await connected(false), await connected(true)]
      const areSeen = async () => {
        for (const { pod, seen, call } of pods) {
          const asked = [script('echo-client.ts'), 'tcp', '192.168.10.1', '8080', '0']
          const { stdout } = await pod.exec(process.execPath, asked, { check: false })
          assert.equal(stdout.trim(), `server sees ${seen}`, JSON.stringify(call.config))
          await at.ok('CHECK', 'weft', call)
        }
      }
      await areSeen()
      const before = await at.settledRuleset()
      await at.cluster.daemon(1).restart('SIGKILL')
      await areSeen()
      assert.equal(await at.settledRuleset(), before)
      // Within the network nobody is masqueraded.
      const [first, , last] = pods
      const inner = first?.pod.spawn(process.execPath, [script('echo-server.ts'), 'pod', '8080'])
      await until(() => inner?.text().includes('listening'), { what: 'the server in the pod' })
      const asked = [script('echo-client.ts'), 'tcp', String(first?.address), '8080', '0']
      const { stdout } = (await last?.pod.exec(process.execPath, asked)) ?? assert.fail()
      assert.equal(stdout.trim(), `pod sees ${last?.address}`)
      for (const { pod } of pods) await at.ok('DEL', 'weft', { config: {}, id: pod.name, netns: '' })
      assert.doesNotMatch(await at.ruleset(), new RegExp(pods.map(({ address }) => `\\b${address}\\b`).join('|')))
    })
