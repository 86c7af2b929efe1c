// The table of plugins, and that the executable announces what it says without having it inside.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { build } from 'esbuild'
import { main } from '../../../../plugins/main.ts'
import { forwardingPluginNamed, pluginNamed, pluginTypes } from '../../../../plugins/types/registry.ts'
import { addCall } from '../calls.ts'
import { HostOnNode } from '../host-on-node.ts'

const named = (type: string) => pluginNamed(type) ?? forwardingPluginNamed(type)

test('every name is there once and finds its plugin', () => {
  equal(new Set(pluginTypes).size, pluginTypes.length)
  for (const type of pluginTypes) equal(named(type)?.type, type)
  equal(named('toString'), undefined)
})

test('a plugin that gives no addresses is refused as IPAM, whatever asks for it', () => {
  for (const type of pluginTypes.filter((each) => each !== 'host-local' && each !== 'static'))
    throws(() => pluginNamed('bridge')?.attachment(addCall('bridge', { ipam: { type } })), { code: 7 }, type)
})

for (const type of pluginTypes) {
  test(`${type}: the executable announces the versions of the table`, async () => {
    const host = new HostOnNode({ program: type, environment: { CNI_COMMAND: 'VERSION' } })
    await main(host)
    deepEqual(JSON.parse(host.output).supportedVersions, named(type)?.versions)
  })
}

test('the executable has neither the plugins nor address arithmetic inside', async () => {
  const bundled = await build({
    entryPoints: ['plugins/main.ts'],
    bundle: true,
    write: false,
    metafile: true,
    platform: 'neutral',
    format: 'esm'
  })
  const inside = Object.keys(bundled.metafile.inputs).sort()
  deepEqual(
    inside,
    ['call', 'cni/error', 'cni/field', 'cni/interface-name', 'cni/version', 'main', 'protocol', 'unreachable'].map(
      (file) => `plugins/${file}.ts`
    )
  )
})
