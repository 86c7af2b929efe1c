// The CNI configuration list: what is accepted as one, which files a runtime takes first, and how the file is kept in
// place.
import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { WeftError } from '../../../daemon/base/error.ts'
import { Health } from '../../../daemon/health/health.ts'
import {
  CONFLIST_NAME,
  checkedConflist,
  DEFAULT_CONFLIST,
  delegatesToUs,
  sharedConflist,
  takenBefore
} from '../../../daemon/lifecycle/conflist.ts'
import { keepConflist, removeConflist } from '../../../daemon/lifecycle/conflist-file.ts'
import { until } from '../../lab/run.ts'
import { heard } from '../logs.ts'

const flannels = `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
`

test("the default list and flannel's own are accepted as they are", () => {
  for (const list of [DEFAULT_CONFLIST, flannels]) assert.equal(checkedConflist(list, 'here'), list)
})

test('a list without a newline at its end gets one, and nothing else is changed', () => {
  assert.equal(checkedConflist(flannels.trimEnd(), 'here'), flannels)
})

const wrong: readonly (readonly [what: string, list: string, said: RegExp])[] = [
  ['no JSON', '{', /^\/etc\/x: .*JSON/],
  ['no object', '[]', /must be an object/],
  ['without a name', '{"cniVersion":"1.0.0","plugins":[{"type":"weft"}]}', /name: nothing is wrong: must be the name/],
  ['named as no network may be', '{"cniVersion":"1.0.0","name":"../x","plugins":[{"type":"weft"}]}', /name: "\.\.\/x"/],
  ['without a version', '{"name":"a","plugins":[{"type":"weft"}]}', /cniVersion: nothing/],
  ['without plugins', '{"cniVersion":"1.0.0","name":"a"}', /plugins: nothing .* at least one/],
  ['with an empty list of plugins', '{"cniVersion":"1.0.0","name":"a","plugins":[]}', /plugins: \[\] .* at least one/],
  ['with a plugin that has no type', '{"cniVersion":"1.0.0","name":"a","plugins":[{}]}', /plugins\[0\]\.type: nothing/]
]
for (const [what, list, said] of wrong) {
  test(`a list ${what} is refused with the place, the value and the rule`, () => {
    assert.throws(
      () => checkedConflist(list, '/etc/x'),
      (error) => error instanceof WeftError && error.code === 'CNI_CONF_INVALID' && said.test(error.message)
    )
  })
}

test('a runtime takes before ours what sorts before it and ends as a configuration', () => {
  const names = [
    '99-loopback.conf',
    '10-weft.conflist',
    '10-flannel.conflist',
    '05-x.conf',
    '00-note.txt',
    '.lock',
    '10-weft.conf'
  ]
  assert.deepEqual(takenBefore(names), ['05-x.conf', '10-flannel.conflist', '10-weft.conf'])
})

const weft = { type: 'weft', hairpinMode: true, capabilities: { portMappings: true, bandwidth: true } }
const mesh = { type: 'mesh-cni', kubernetes: { kubeconfig: '/etc/cni/net.d/ZZZ-mesh' } }
const portmap = { type: 'portmap', snat: true }
const list = (...plugins: readonly object[]) => JSON.stringify({ name: 'cbr0', cniVersion: '1.0.0', plugins })
const withKeys = (keys: object, ...plugins: readonly object[]) =>
  JSON.stringify({ ...(JSON.parse(list(...plugins)) as object), ...keys })

const shared: readonly (readonly [what: string, found: string, added: string])[] = [
  ["a mesh's plugin behind ours", list(weft, mesh), 'mesh-cni'],
  [
    'the same list in another order of keys',
    list({ capabilities: weft.capabilities, hairpinMode: true, type: 'weft' }),
    ''
  ],
  ['a key of the list that the specification knows', withKeys({ disableCheck: true }, weft), ''],
  ['several plugins', list(weft, mesh, { type: 'tuning' }), 'mesh-cni,tuning']
]
for (const [what, found, added] of shared)
  test(`${what} stays in the list as it is`, () => {
    for (const written of [undefined, DEFAULT_CONFLIST]) {
      const kept = sharedConflist(DEFAULT_CONFLIST, found, written)
      assert.equal(kept.text, found)
      assert.equal(kept.added.join(), added)
    }
  })

test('a plugin between two of ours stays there', () => {
  const found = list(weft, mesh, portmap)
  assert.equal(sharedConflist(list(weft, portmap), found, undefined).text, found)
})

test('our part is corrected without what others have added', () => {
  const corrected = (wanted: string, found: string, written?: string) =>
    JSON.parse(sharedConflist(wanted, found, written).text) as unknown
  const now = (text: string) => JSON.parse(text) as unknown
  assert.deepEqual(corrected(list(weft, portmap), list({ type: 'weft' }, mesh)), now(list(weft, portmap, mesh)))
  // What has left the source since a weftd wrote it is not another program's.
  assert.deepEqual(corrected(list(weft), list(weft, portmap, mesh), list(weft, portmap)), now(list(weft, mesh)))
  assert.deepEqual(corrected(list(weft), list(weft, portmap), list(weft, portmap)), now(list(weft)))
  const [before, changed] = [withKeys({ disableCheck: true }, weft), withKeys({ disableCheck: true }, weft, mesh)]
  assert.deepEqual(corrected(list(weft), changed, before), now(list(weft, mesh)))
  assert.deepEqual(corrected(withKeys({ cniVersion: '1.1.0' }, weft), list(weft, mesh)), {
    ...(now(list(weft, mesh)) as object),
    cniVersion: '1.1.0'
  })
})

const foreign: readonly (readonly [what: string, found: string | undefined])[] = [
  ['nothing', undefined],
  ['no JSON', '{'],
  ['an empty object', '{}'],
  ["another network's list", withKeys({ name: 'k8s-pod-network' }, weft, mesh)],
  ['a list that begins with another plugin', list({ type: 'calico' }, weft)],
  ['a list without plugins', list()],
  ['plugins that are no objects', '{"name":"cbr0","plugins":["weft"]}']
]
for (const [what, found] of foreign)
  test(`${what} is replaced by our list`, () => {
    assert.deepEqual(sharedConflist(DEFAULT_CONFLIST, found, undefined), { text: DEFAULT_CONFLIST, added: [] })
  })

const multus = (keys: object) =>
  JSON.stringify({ cniVersion: '0.3.1', name: 'multus-cni-network', type: 'multus', ...keys })
const delegating: readonly (readonly [what: string, text: string, isOurs: boolean])[] = [
  ['Multus with our list as its delegate', multus({ delegates: [JSON.parse(DEFAULT_CONFLIST)] }), true],
  ['Multus with our plugin as its delegate', multus({ delegates: [{ type: 'weft', name: 'cbr0' }] }), true],
  ['Multus with the path of our list', multus({ clusterNetwork: `/host/etc/cni/net.d/${CONFLIST_NAME}` }), true],
  ['Multus with the name of our network', multus({ clusterNetwork: 'other', defaultNetworks: ['cbr0'] }), true],
  ['a list of the administrator with our plugin', list({ type: 'weft', mtu: 1400 }), true],
  ['a list with Multus in it', list(JSON.parse(multus({ delegates: [{ type: 'weft' }] })) as object), true],
  ["Multus with somebody else's network", multus({ delegates: [{ type: 'calico' }], clusterNetwork: 'k8s' }), false],
  ["flannel's list", flannels, false],
  ['no JSON', 'weft', false]
]
for (const [what, text, isOurs] of delegating)
  test(`${what} ${isOurs ? 'hands pods to us' : 'bypasses us'}`, () => {
    assert.equal(delegatesToUs(text, 'cbr0'), isOurs)
  })

type Logged = { readonly level: 'info' | 'warn'; readonly text: string }

/** A directory, a node that can serve pods, and the keeper at work until the end of the test. */
function keeper(source?: string) {
  const root = mkdtempSync(join(tmpdir(), 'weft-conflist-'))
  const directory = join(root, 'net.d')
  const health = new Health(Date.now, () => {})
  const logged: Logged[] = []
  const log = heard((level, _fields, text) => (level === 'info' || level === 'warn') && logged.push({ level, text }))
  const stop = new AbortController()
  const path = join(directory, CONFLIST_NAME)
  if (source !== undefined) writeFileSync(join(root, 'cni-conf.json'), source)
  const fights: string[] = []
  const backoff = { pause: async () => void fights.push('pause'), reset: () => void fights.push('reset') }
  const from = source !== undefined && { source: join(root, 'cni-conf.json') }
  const kept = keepConflist(
    { directory, ...from, health, log, record: join(root, 'record'), checkMs: 50, backoff },
    stop.signal
  )
  return {
    ...{ root, directory, health, logged, path, fights },
    text: () => (existsSync(path) ? readFileSync(path, 'utf8') : undefined),
    async [Symbol.asyncDispose]() {
      stop.abort()
      await kept.catch(() => {})
      rmSync(root, { recursive: true })
    }
  }
}

const holds = (health: Health, code: string) => health.active().find((condition) => condition.code === code)

test('the list appears when pods can be served, not before', async () => {
  await using node = keeper()
  mkdirSync(node.directory)
  writeFileSync(join(node.directory, '99-other.conf'), '{}')
  node.health.raise('NO_LEASE', 'not yet')
  node.health.clear('STARTING')
  assert.equal(node.text(), undefined)
  node.health.clear('NO_LEASE')
  await until(() => node.text() === DEFAULT_CONFLIST, { what: 'the list' })
  assert.deepEqual(readdirSync(node.directory), [CONFLIST_NAME, '99-other.conf'])
})

for (const isThere of [false, true])
  test(`a directory that is ${isThere ? 'there is not told' : 'missing is made, and told by one line'}`, async () => {
    await using node = keeper()
    if (isThere) mkdirSync(node.directory)
    node.health.clear('STARTING')
    await until(node.text, { what: 'the list' })
    const made = node.logged.filter(({ text }) => text.startsWith('created the directory of --cni-conf-dir'))
    assert.deepEqual(
      made.map(({ level }) => level),
      isThere ? [] : ['info']
    )
  })

test('the list outlives the keeper, so that a restart leaves no gap', async () => {
  const node = keeper()
  node.health.clear('STARTING')
  await until(node.text, { what: 'the list' })
  const directory = mkdtempSync(join(tmpdir(), 'weft-conflist-'))
  renameSync(node.directory, join(directory, 'net.d'))
  await node[Symbol.asyncDispose]()
  assert.deepEqual(readdirSync(join(directory, 'net.d')), [CONFLIST_NAME])
  // As a weftd that is killed while it writes leaves it.
  writeFileSync(join(directory, 'net.d', '.10-weft.conflist.weft-new'), '{')
  removeConflist(join(directory, 'net.d'))
  assert.deepEqual(readdirSync(join(directory, 'net.d')), [])
  removeConflist(join(directory, 'net.d'))
  rmSync(directory, { recursive: true })
})

test('a list that somebody removes, changes, or removes with its directory comes back, and a removal is reported', async () => {
  await using node = keeper()
  node.health.clear('STARTING')
  await until(node.text, { what: 'the list' })
  rmSync(node.path)
  await until(node.text, { what: 'the list again' })
  assert.match(node.logged.at(-1)?.text ?? '', /restored/)
  writeFileSync(node.path, '{}')
  await until(() => node.text() === DEFAULT_CONFLIST, { what: 'its content again' })
  // Pauses grow while somebody keeps at it.
  assert.deepEqual(node.fights.slice(0, 3), ['reset', 'pause', 'pause'])
  rmSync(node.directory, { recursive: true })
  await until(node.text, { what: 'the list with its directory' })
  rmSync(node.path)
  await until(node.text, { what: 'the list in the new directory' })
})

test('the source is followed when it is replaced, and one that is not valid leaves the list as it was', async () => {
  await using node = keeper(flannels)
  node.health.clear('STARTING')
  await until(() => node.text() === flannels, { what: 'the list of the source' })
  const replace = (text: string) => {
    writeFileSync(join(node.root, 'new'), text)
    renameSync(join(node.root, 'new'), join(node.root, 'cni-conf.json'))
  }
  replace('{"name":""}')
  const wrong = await until(() => holds(node.health, 'CNI_CONF_INVALID'), { what: 'the condition' })
  assert.match(wrong.detail, /cni-conf\.json: name: "" is wrong/)
  assert.equal(wrong.cure.startsWith(`correct ${join(node.root, 'cni-conf.json')} (`), true, wrong.cure)
  assert.equal(node.text(), flannels)
  assert.equal(node.health.blocking('add'), undefined)
  replace(DEFAULT_CONFLIST)
  await until(() => node.text() === DEFAULT_CONFLIST, { what: 'the new list' })
  assert.equal(holds(node.health, 'CNI_CONF_INVALID'), undefined)
  assert.deepEqual(node.fights, [])
})

test('a source that does not exist is reported, and no other list is written in its place', async () => {
  await using node = keeper(flannels)
  rmSync(join(node.root, 'cni-conf.json'))
  node.health.clear('STARTING')
  const wrong = await until(() => holds(node.health, 'CNI_CONF_INVALID'), { what: 'the condition' })
  assert.equal(wrong.detail, `--cni-conf-source ${join(node.root, 'cni-conf.json')} does not exist`)
  assert.match(wrong.cure, /^correct --cni-conf-source/)
  assert.equal(node.text(), undefined)
  writeFileSync(join(node.root, 'cni-conf.json'), flannels)
  await until(() => node.text() === flannels, { what: 'the list of the source' })
  assert.equal(holds(node.health, 'CNI_CONF_INVALID'), undefined)
})

test('a configuration that sorts before ours is a condition that names the file, for as long as it is there', async () => {
  await using node = keeper()
  mkdirSync(node.directory)
  const other = join(node.directory, '10-flannel.conflist')
  writeFileSync(other, flannels)
  node.health.clear('STARTING')
  const shadowed = await until(() => holds(node.health, 'CNI_CONF_SHADOWED'), { what: 'the condition' })
  assert.equal(shadowed.detail, other)
  assert.equal(shadowed.severity, 'warning')
  rmSync(other)
  await until(() => holds(node.health, 'CNI_CONF_SHADOWED') === undefined, { what: 'its end' })
})

test('a directory that cannot be written is a condition with path and reason, which ends when it can', async () => {
  await using node = keeper()
  writeFileSync(node.directory, 'a file')
  node.health.clear('STARTING')
  const refused = await until(() => holds(node.health, 'CNI_CONF_UNWRITABLE'), { what: 'the condition' })
  assert.match(refused.detail, /net\.d\/10-weft\.conflist/)
  assert.ok(refused.blocks.includes('ready'))
  rmSync(node.directory)
  await until(node.text, { what: 'the list' })
  assert.equal(holds(node.health, 'CNI_CONF_UNWRITABLE'), undefined)
})

test("a mesh's plugin stays, is logged once, and outlives a restart and a change of the source", async () => {
  const node = keeper(list(weft, portmap))
  node.health.clear('STARTING')
  await until(node.text, { what: 'the list' })
  const replace = (path: string, text: string) => {
    writeFileSync(`${path}.tmp`, text)
    renameSync(`${path}.tmp`, path)
  }
  replace(node.path, list(weft, portmap, mesh))
  const lines = () => node.logged.filter(({ text }) => /other programs' plugins/.test(text)).length
  await until(() => lines() === 1, { what: 'the line about it' })
  assert.equal(node.text(), list(weft, portmap, mesh))
  assert.deepEqual(node.fights, [])
  const moved = mkdtempSync(join(tmpdir(), 'weft-conflist-'))
  for (const name of readdirSync(node.root)) renameSync(join(node.root, name), join(moved, name))
  await node[Symbol.asyncDispose]()
  // portmap leaves the source while no weftd runs.
  const source = join(moved, 'cni-conf.json')
  writeFileSync(source, list(weft))
  const directory = join(moved, 'net.d')
  const stop = new AbortController()
  const next = { directory, source, record: join(moved, 'record'), health: node.health, log: heard(() => {}) }
  const kept = keepConflist({ ...next, checkMs: 50 }, stop.signal)
  const types = () => {
    const { plugins } = JSON.parse(readFileSync(join(directory, CONFLIST_NAME), 'utf8')) as { plugins: (typeof weft)[] }
    return plugins.map(({ type }) => type).join()
  }
  await until(() => types() === 'weft,mesh-cni', { what: 'the corrected list' })
  stop.abort()
  await kept.catch(() => {})
  rmSync(moved, { recursive: true })
})

test('a program that keeps replacing the list is a condition that says with what', async () => {
  await using node = keeper()
  node.health.clear('STARTING')
  await until(node.text, { what: 'the list' })
  for (let round = 0; round < 3; round++) {
    writeFileSync(node.path, list({ type: 'calico' }))
    await until(() => node.text() === DEFAULT_CONFLIST, { what: 'our list again' })
  }
  const contested = await until(() => holds(node.health, 'CNI_CONF_CONTESTED'), { what: 'the condition' })
  assert.match(contested.detail, /10-weft\.conflist was replaced by a list that begins with "calico"$/)
})

test('a Multus configuration that sorts first and delegates to us is no condition', async () => {
  await using node = keeper()
  mkdirSync(node.directory)
  const other = join(node.directory, '00-multus.conf')
  writeFileSync(other, multus({ delegates: [{ type: 'calico' }] }))
  node.health.clear('STARTING')
  await until(() => holds(node.health, 'CNI_CONF_SHADOWED'), { what: 'the condition' })
  writeFileSync(other, multus({ delegates: [JSON.parse(DEFAULT_CONFLIST)] }))
  await until(() => holds(node.health, 'CNI_CONF_SHADOWED') === undefined, { what: 'its end' })
})
