// Protocol and errors: cases 1 to 24 of the CNI reference, over Weft's own interface plugin and over bridge.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, before, describe, test } from 'node:test'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { BIN } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'

const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']

/** The plugins under test, each as its configuration spells gateway, masquerade and pool. */
const subjects: readonly { readonly type: string; readonly config: Json }[] = [
  { type: 'weft', config: { mode: 'bridge', bridge: 'br1', ipam: { ranges: [[{ subnet: '10.10.0.0/24' }]] } } },
  {
    type: 'bridge',
    config: {
      bridge: 'br1',
      isDefaultGateway: true,
      ipMasq: true,
      ipam: { type: 'host-local', subnet: '10.10.0.0/24' }
    }
  }
]

describe('VERSION', { skip }, () => {
  for (const type of pluginTypes) {
    for (const input of [undefined, '', '{{{']) {
      test(`case 1: ${type} with ${input === undefined ? 'a closed' : JSON.stringify(input)} standard input`, async () => {
        const child = spawn('sh', ['-c', `exec ${BIN}/${type} ${input === undefined ? '<&-' : ''}`], {
          env: { CNI_COMMAND: 'VERSION' },
          stdio: ['pipe', 'pipe', 'inherit']
        })
        child.stdin.on('error', () => undefined).end(input)
        let said = ''
        for await (const chunk of child.stdout) said += chunk
        const answer = JSON.parse(said) as Json
        assert.ok(answer.cniVersion)
        assert.deepEqual(answer.supportedVersions, versions)
      })
    }
  }
})

for (const { type, config } of subjects) {
  describe(`${type}: protocol`, { skip, timeout: 300_000 }, () => {
    let at: CniHost
    before(async () => {
      at = await CniHost.start()
    })
    after(() => at[Symbol.asyncDispose]())

    /** Nothing of any container is left in the host. */
    async function isClean(): Promise<void> {
      assert.deepEqual(
        (await at.links()).filter((name) => name.startsWith('veth')),
        []
      )
      assert.deepEqual(await at.reserved(), [])
    }

    async function inVersion(cniVersion: string | undefined): Promise<Json> {
      const pod = await at.pod()
      const { cniVersion: _, ...rest } = { cniVersion: '', ...config }
      const written = cniVersion === undefined ? rest : { ...rest, cniVersion }
      const call = { config: JSON.stringify({ name: 'net1', type, ...written }), pod }
      const result = await at.ok('ADD', type, call)
      await at.ok('DEL', type, call)
      await isClean()
      return result
    }

    for (const version of ['0.3.1', '0.4.0']) {
      test(`case 2: in ${version} each address says its family`, async () => {
        const result = await inVersion(version)
        assert.deepEqual([result.cniVersion, (result.ips as Json[]).map((ip) => ip.version)], [version, ['4']])
      })
    }
    for (const version of ['1.0.0', '1.1.0']) {
      test(`case 3: in ${version} no address has a version`, async () => {
        const result = await inVersion(version)
        assert.equal(result.cniVersion, version)
        for (const ip of result.ips as Json[]) assert.ok(!('version' in ip))
      })
    }
    test('case 4: in 0.2.0 there is one address with its gateway, and no interfaces', async () => {
      const { ip4, interfaces, ips } = (await inVersion('0.2.0')) as { readonly [key: string]: Json | undefined }
      assert.match(String(ip4?.ip), /^10\.10\.0\.\d+\/24$/)
      assert.deepEqual([ip4?.gateway, interfaces, ips], ['10.10.0.1', undefined, undefined])
    })
    for (const version of [undefined, '']) {
      test(`case 5: a version that is ${version === undefined ? 'absent' : 'empty'} is 0.1.0`, async () => {
        const result = await inVersion(version)
        assert.deepEqual([result.cniVersion, typeof result.ip4], ['0.1.0', 'object'])
      })
    }
    test('case 6: two addresses of a family cannot be told in 0.2.0: nothing is reserved', async () => {
      const two = {
        ...(config.ipam as Json),
        subnet: undefined,
        ranges: [[{ subnet: '10.10.0.0/24' }], [{ subnet: '10.11.0.0/24' }]]
      }
      const call = { config: { ...config, cniVersion: '0.2.0', ipam: two }, pod: await at.pod() }
      await at.fails('ADD', type, call, /0\.2\.0/, 1)
      await isClean()
    })
    test('case 8: prevResult must be in the version of the request, which it may leave out', async () => {
      const pod = await at.pod()
      const before = await at.ok('ADD', type, { config, pod })
      const { cniVersion: _, ...unmarked } = before
      await at.ok('CHECK', type, { config: { ...config, prevResult: unmarked }, pod })
      const other = { ...before, cniVersion: '1.0.0' }
      await at.fails('CHECK', type, { config: { ...config, prevResult: other }, pod }, /prevResult.*1\.0\.0/)
      await at.ok('DEL', type, { config, pod })
    })
    test('case 10: unknown members, capabilities and a null runtimeConfig have no effect', async () => {
      const noise = { capabilities: { ips: true }, runtimeConfig: null, unknown: { a: [1] }, args: { cni: { b: 1 } } }
      const pod = await at.pod()
      const call = { config: { ...config, ...noise, ipam: { ...(config.ipam as Json), unknown: 1 } }, pod }
      assert.equal(addressesOf(await at.ok('ADD', type, call)).length, 1)
      await at.ok('DEL', type, call)
    })
    test("case 11: the container's interface has the sandbox as it was given, and the addresses point at it", async () => {
      const pod = await at.pod()
      await at.host.sh(`ln -s ${pod.netns} /run/link-${pod.name}`)
      const netns = `/run/link-${pod.name}`
      const result = await at.ok('ADD', type, { config, pod, netns })
      const interfaces = result.interfaces as readonly Json[]
      const inside = interfaces.findIndex(({ sandbox }) => sandbox !== undefined)
      assert.deepEqual([interfaces[inside]?.name, interfaces[inside]?.sandbox], ['eth0', netns])
      assert.equal(interfaces.filter(({ sandbox }) => sandbox !== undefined).length, 1)
      for (const ip of result.ips as readonly Json[]) assert.equal(ip.interface, inside)
      await at.ok('DEL', type, { config, pod, netns })
    })
    test('case 12: trace variables, malformed ones too, have no effect', async () => {
      const pod = await at.pod()
      const env = { TRACEPARENT: 'garbage', TRACESTATE: '=', BAGGAGE: ',,,' }
      await at.ok('ADD', type, { config, pod, env })
      await at.ok('DEL', type, { config, pod, env })
    })
    test('case 13: all missing variables are named at once', async () => {
      const empty = { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' }
      await at.fails('ADD', type, { config, env: empty }, /CNI_CONTAINERID.*CNI_NETNS.*CNI_IFNAME/, 4)
    })
    test('case 14: an unknown verb is named', () => at.fails('FOO', type, { config, id: 'a', netns: '/x' }, /FOO/, 4))
    test('case 15: container ids of the alphabet are accepted, others are not', async () => {
      const pod = await at.pod()
      for (const id of ['-abc', 'a/b', 'a b', 'ä'])
        await at.fails('ADD', type, { config, pod, id }, /CNI_CONTAINERID/, 4)
      for (const id of ['a', '0_.-', '0123456789abcdef'.repeat(4), 'x'.repeat(300)]) {
        await at.ok('ADD', type, { config, pod, id })
        await at.ok('DEL', type, { config, pod, id })
      }
      await isClean()
    })
    test('case 16: interface names that the kernel refuses are refused before anything is made', async () => {
      const pod = await at.pod()
      for (const ifname of ['abcdefghijklmnop', 'a/b', 'a:b', 'a b', '.', '..'])
        await at.fails('ADD', type, { config, pod, ifname }, /CNI_IFNAME|interface name/, 4)
      await isClean()
      const call = { config, pod, ifname: 'abcdefghijklmno' }
      await at.ok('ADD', type, call)
      assert.match((await pod.exec('ip', ['link'])).stdout, /abcdefghijklmno/)
      await at.ok('DEL', type, call)
    })
    test('case 17: what is no configuration is distinguished from a bad name, and makes no file', async () => {
      const pod = await at.pod()
      const before = await at.files('/var/lib/cni/networks')
      for (const input of ['', '{', '[]', '"x"']) await at.fails('ADD', type, { config: input, pod }, /./, 6)
      for (const input of ['null', '{}', '{"name":""}']) await at.fails('ADD', type, { config: input, pod }, /name/, 7)
      for (const name of ['a/b', '../x', '-x'])
        await at.fails('ADD', type, { config: { ...config, name }, pod }, /name/, 7)
      assert.deepEqual(await at.files('/var/lib/cni/networks'), before)
    })
    test('case 18: a version that is not ours is named with those that are', async () => {
      const pod = await at.pod()
      await at.fails('ADD', type, { config: { ...config, cniVersion: '9.9.9' }, pod }, /9\.9\.9.*0\.1\.0.*1\.1\.0/, 1)
      await at.fails('ADD', type, { config: { ...config, cniVersion: 1 }, pod }, /cniVersion/, 6)
    })
    test('case 19: a namespace that is missing or none is named, and nothing is left', async () => {
      await at.host.sh('echo x > /run/file')
      for (const netns of ['/run/netns/none', '/run/file'])
        await at.fails('ADD', type, { config, id: 'a', netns }, new RegExp(netns))
      await isClean()
    })
    test("case 20: the host's own namespace is refused before anything is made", async () => {
      await at.fails('ADD', type, { config, id: 'a', netns: `/proc/${at.host.pidInside}/ns/net` }, /own/, 8)
      await isClean()
    })
    test('case 23: eight megabytes of configuration, and bytes that come one by one, are a call like any other', async () => {
      const pod = await at.pod()
      const large = { ...config, padding: 'x'.repeat(8 * 1024 * 1024) }
      await at.ok('ADD', type, { config: large, pod })
      await at.ok('DEL', type, { config: large, pod })
      const json = JSON.stringify({ name: 'net1', cniVersion: '1.1.0', type, ...config })
      const script = `(for c in $(printf '%s' '${json}' | od -An -v -tx1); do printf "\\\\x$c"; done) | ${BIN}/${type}`
      const env = {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: 'slow',
        CNI_NETNS: pod.netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: BIN
      }
      const { stdout } = await at.host.exec('bash', ['--norc', '-c', script], { env })
      assert.equal(addressesOf(JSON.parse(stdout) as Json).length, 1)
      await at.ok('DEL', type, { config, pod, id: 'slow' })
      await isClean()
    })
    test('case 72: GC and STATUS came with 1.1.0', async () => {
      for (const verb of ['GC', 'STATUS'])
        await at.fails(
          verb,
          type,
          { config: { ...config, cniVersion: '1.0.0' } },
          new RegExp(`does not allow ${verb}`),
          1
        )
    })
  })
}
