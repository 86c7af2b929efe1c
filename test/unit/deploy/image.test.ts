// The image: its list of files, and that the Dockerfile makes the same one.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { pluginTypes } from '../../../plugins/types/registry.ts'
import { imageFiles, PACKAGES } from '../../../scripts/container/files.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const dockerfile = readFileSync(`${root}deploy/Dockerfile`, 'utf8')

test('the Dockerfile installs every package that files of the image come from', () => {
  const installed = /apt-get install -y --no-install-recommends \\\n([\s\S]*?)\n *&&/.exec(dockerfile)?.[1] ?? ''
  const names = installed.split(/[\s\\]+/).filter((name) => name !== '')
  assert.deepEqual(
    PACKAGES.filter((name) => !names.includes(name)),
    []
  )
})

test('the Dockerfile takes the list of files from where scripts/image takes it, and its last stage holds them and nothing else', () => {
  assert.match(dockerfile, /scripts\/image root \/image/)
  const last = dockerfile.slice(dockerfile.lastIndexOf('\nFROM ')).trim().split('\n')
  assert.equal(last[0], 'FROM scratch')
  assert.deepEqual(
    last.filter((line) => /^(COPY|ADD|RUN) /.test(line)),
    ['COPY --from=build /image /']
  )
})

for (const words of [
  ['--nam=x'],
  ['--name='],
  ['--name=Registry.example/Weft:1'],
  ['--name=weft'],
  ['root'],
  ['root', '/tmp']
]) {
  test(`scripts/image ${words.join(' ')} is refused in two lines: the word, and the cure`, () => {
    const { status, stderr } = spawnSync(process.execPath, [`${root}scripts/container/image.ts`, ...words], {
      encoding: 'utf8'
    })
    assert.equal(status, 2)
    assert.match(stderr, /^image: .*\ncure: .*\n$/)
  })
}

const isBuilt = existsSync(`${root}dist/bin/weftd`) && existsSync(`${root}dist/cni/weft`)

test('the image has the executables under all their names, no shell, and no library that lacks its name', {
  skip: isBuilt ? false : 'dist/ is not there: scripts/build makes it'
}, () => {
  const files = imageFiles(`${root}dist`)
  for (const name of ['weftd', 'weftctl', 'kubectl-weft']) assert.ok(files.has(`usr/bin/${name}`), name)
  assert.deepEqual(
    pluginTypes.filter((name) => !files.has(`usr/lib/weft/cni/${name}`)),
    []
  )
  assert.deepEqual(
    [...files.keys()].filter((path) => /\/(ba|da|z)?sh$|busybox/.test(path)),
    []
  )
  // Whatever an executable asks the loader for is a name in the image, of a file in the image.
  for (const [path, entry] of files) {
    if (entry.kind !== 'symbolic link' || !path.includes('.so')) continue
    const target = `${path.slice(0, path.lastIndexOf('/'))}/${entry.to}`
    assert.ok(files.has(target) || entry.to.startsWith('../'), `${path} leads to ${entry.to}, which is not there`)
  }
  for (const kind of ['nft', 'legacy'])
    for (const program of ['', '-save', '-restore'])
      for (const name of [`iptables-${kind}${program}`, `ip6tables-${kind}${program}`])
        assert.deepEqual(files.get(`usr/sbin/${name}`), { kind: 'symbolic link', to: `xtables-${kind}-multi` })
  assert.ok([...files.keys()].some((path) => path.endsWith('/libnftables.so.1')))
  assert.ok([...files.keys()].some((path) => path.endsWith('/xtables/libxt_conntrack.so')))
})
