// The rules of the house that no linter knows: first lines, sizes, one version, a test for every pure file, names, and
// the room table itself.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, extname, join, resolve } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { biomeText, pureFiles, pureText, rooms, roomTable } from '../../scripts/rooms.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
/** What git holds or would take, without what was deleted and not yet committed. */
const files = execFileSync(
  'git',
  // Whoever runs the tests need not own the clone.
  ['-c', `safe.directory=${resolve(root)}`, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
  { cwd: root, encoding: 'utf8' }
)
  .split('\0')
  .filter((path) => path !== '' && existsSync(join(root, path)))
const isScript = (path: string): boolean => extname(path) === '' && read(path).startsWith('#!')
const sources = files.filter((path) => /\.(ts|rs|go)$/.test(path) || (/^(scripts|\.ci)\//.test(path) && isScript(path)))

test('there is something to check', () => assert.ok(sources.length > 30, `${sources.length} files`))

test('the first line of every source file is a comment that says why it exists', () => {
  const silent = sources.filter((path) => {
    const [first = '', second = ''] = read(path).split('\n')
    const line = first.startsWith('#!') ? second : first
    return !/^(\/\/[/!]?|#) ?\S.{18,}/.test(line)
  })
  assert.deepEqual(silent, [])
})

test('which files are pure is said by the table of rooms, not by their first lines', () => {
  const claims = files.filter(
    (path) =>
      /^(daemon|plugins|ipam)\/.*(?<!\.d)\.ts$/.test(path) &&
      /\b(pure|no I\/O)\b/i.test(read(path).split('\n', 1)[0] ?? '')
  )
  assert.deepEqual(claims, [])
})

test('no source file is longer than 400 lines', () => {
  const long = sources.filter((path) => read(path).trimEnd().split('\n').length > 400)
  assert.deepEqual(long, [])
})

test('the version stands in package.json, and in deploy/ the same one', () => {
  const { version } = JSON.parse(read('package.json'))
  // The lock file repeats it by npm's rule; the changelog tells history; Cargo's needs one and is never shown.
  // Manifests and chart name an image.
  const others = files.filter(
    (path) =>
      !/^(package(-lock)?\.json|CHANGELOG\.md|plugins\/host\/Cargo\.(toml|lock)|deploy\/[^/]+\.yaml|deploy\/chart\/.*\.yaml)$/.test(
        path
      )
  )
  const alone = new RegExp(`(?<![\\w.])v?${version.replaceAll('.', '\\.')}(?![\\w.]|-)`)
  const ours = others.filter((path) => /\.(ts|md|ya?ml|rs|service|json)$|^(scripts|deploy|\.ci)\//.test(path))
  assert.deepEqual(
    ours.filter((path) =>
      read(path)
        .split('\n')
        .some((line) => alone.test(line) && /weft/i.test(line))
    ),
    []
  )
  assert.equal(JSON.parse(read('package-lock.json')).version, version)
  const deployed = files
    .filter((path) => /^deploy\/.*\.yaml$/.test(path))
    .flatMap((path) => [...read(path).matchAll(/(?:image: \S*weft:|^(?:appVersion|version): "?)([^"\s]+)/gm)])
    .map(([, found]) => found)
  assert.ok(deployed.length > 0)
  assert.deepEqual(new Set(deployed), new Set([version]))
})

test('names say what a file is for', () => {
  const empty = /^(util|utils|helper|helpers|common|misc|manager|data|info|handle|index)s?\.(ts|rs)$/
  assert.deepEqual(
    sources.filter((path) => empty.test(basename(path))),
    []
  )
  assert.deepEqual(
    sources.filter((path) => !/^[a-z0-9.-]+$/.test(basename(path)) && path.endsWith('.ts')),
    []
  )
})

/** The pure files, by the table of rooms. */
function purePaths(): readonly string[] {
  const { include, exclude } = pureFiles()
  const isPure = (path: string) => include.includes(path) || include.includes(`${dirname(path)}/*.ts`)
  return files.filter((path) => /(?<!\.d)\.ts$/.test(path) && isPure(path) && !exclude.includes(path))
}

/** Files that a file imports, types left out. */
function imports(path: string): readonly string[] {
  return [
    ...read(path).matchAll(/^(?:import|export)\s+(?!type\b)[^'"]*?from\s+'(\.[^']+)'|import\('(\.[^']+)'\)/gm)
  ].map(([, from, dynamic]) => resolve('/', dirname(path), from ?? dynamic ?? '').slice(1))
}

test('every pure file that does something is imported by a unit test, itself or through files of its own room', () => {
  const reached = new Set(
    files.filter((path) => path.startsWith('test/unit/') && path.endsWith('.ts')).flatMap(imports)
  )
  for (const path of reached) {
    if (!existsSync(join(root, path))) continue
    for (const next of imports(path)) {
      // A plugin's test reads the keys that it shares with others, too.
      const isKey = dirname(path) === 'plugins/types' && dirname(next) === 'plugins/keys'
      if (isKey || dirname(next) === dirname(path)) reached.add(next)
    }
  }
  // A file of types and nothing else compiles to nothing, which no test could see.
  const hasCode = (path: string) => /^export\s+(async\s+)?(const|function|class|let)\b/m.test(read(path))
  // The executable's main file reads the host's globals when it is loaded; tests start it as a program.
  const untested = purePaths().filter((path) => hasCode(path) && !reached.has(path) && path !== 'plugins/main.ts')
  assert.deepEqual(untested, [])
})

test('a comment that silences the linter or the compiler gives its reason, and never silences a whole file written by hand', () => {
  const lines = sources
    // Generated files, and what prints their first lines.
    .filter((path) => !path.endsWith('.generated.ts') && path !== 'scripts/schemas.ts')
    .flatMap((path) =>
      read(path)
        .split('\n')
        .flatMap((line) => (/^\s*\/\/ *(biome-ignore|@ts-)/.test(line) ? [`${path}: ${line.trim()}`] : []))
    )
  const reasoned = /(biome-ignore lint\/\S+: \S+ \S+|@ts-expect-error:? \S+ \S+)/
  assert.deepEqual(
    lines.filter((line) => !reasoned.test(line)),
    []
  )
})

/** The text of a line that is for readers: all of a document's, a source file's comments. */
function prose(path: string, line: string): string {
  if (path.endsWith('.md')) return line
  return (/\.(ts|rs|go)$/.test(path) ? /(?:^|\s)(?:\/\/|\/?\*\*? )(.*)/ : /(?:^|\s)#(.*)/).exec(line)?.[1] ?? ''
}

/**
 * Whether a file of this name exists. A name alone means a file in the folder of the one that mentions it or above, in
 * a document any file; with folders it may be cut short at the front. Capitals stand for a name of the reader's choice.
 */
function exists(mentioned: string, by: string): boolean {
  if (/\bNAME\b/.test(mentioned)) return true
  for (let folder = dirname(by); ; folder = dirname(folder)) {
    if (files.includes(join(folder, mentioned))) return true
    if (folder === '.') break
  }
  const isAnywhere = mentioned.includes('/') || by.endsWith('.md')
  return isAnywhere && files.some((path) => path === mentioned || path.endsWith(`/${mentioned}`))
}

/** What a file says of TypeScript files that do not exist. */
function deadMentions(paths: readonly string[]): readonly string[] {
  return paths.flatMap((path) =>
    read(path)
      .split('\n')
      .flatMap((line, at) =>
        [...prose(path, line).matchAll(/(?<![\w./$-])\w[\w-]*(?:\/[\w-]+)*(?:\.\w+)?\.ts\b/g)]
          .filter(([mentioned]) => !exists(mentioned, path))
          .map(([mentioned]) => `${path}:${at + 1} ${mentioned}`)
      )
  )
}

test('every TypeScript file that a comment or a document names exists', () => {
  // The changelog tells history.
  const readable = files.filter((path) => sources.includes(path) || path.endsWith('.md'))
  assert.deepEqual(deadMentions(readable.filter((path) => path !== 'CHANGELOG.md')), [])
})

test('ARCHITECTURE.md has the table of rooms as it is', () => {
  assert.ok(read('ARCHITECTURE.md').includes(roomTable()), 'print it: node scripts/rooms.ts --print')
})

/**
 * Whether the linter forbids a file at `path` to hold `line`. The file is made in a copy of the tree's shape, not in
 * the tree.
 */
function forbidden(path: string, line: string): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'weft-rooms-'))
  try {
    execFileSync('mkdir', ['-p', join(folder, dirname(path))])
    const config = JSON.parse(read('biome.json'))
    writeFileSync(join(folder, 'biome.json'), JSON.stringify({ ...config, vcs: undefined, $schema: undefined }))
    writeFileSync(join(folder, path), `${line}\n`)
    const biome = spawnSync(join(root, 'node_modules/.bin/biome'), ['lint', '--only=style/noRestrictedImports', path], {
      cwd: folder,
      encoding: 'utf8'
    })
    const said = biome.stdout + biome.stderr
    assert.match(said, /Checked 1 file/, said)
    return biome.status !== 0
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('biome.json and tsconfig.pure.json are what scripts/rooms.ts makes of the table of rooms', () => {
  assert.equal(read('biome.json'), biomeText(), 'run: node scripts/rooms.ts')
  assert.equal(read('tsconfig.pure.json'), pureText(), 'run: node scripts/rooms.ts')
})

test('every folder of code has a row in the table of rooms, and every row a folder', () => {
  const folders = files.filter((path) => /^(daemon|plugins|ipam)\/.*\.ts$/.test(path)).map((path) => dirname(path))
  assert.deepEqual([...new Set(folders)].sort(), rooms.map(({ folder }) => folder).sort())
})

test('packages that a room may import are dependencies', () => {
  const { dependencies } = JSON.parse(read('package.json'))
  const named = rooms.flatMap(({ packages = [] }) => packages).filter((name) => name !== 'node')
  assert.deepEqual(new Set(named), new Set(Object.keys(dependencies)))
})

test('a room may import only rooms further down the table, so there are no circles', () => {
  const place = new Map(rooms.map(({ folder }, at) => [folder, at]))
  for (const [at, { folder, may }] of rooms.entries()) {
    for (const path of may.filter((each) => each !== 'package.json')) {
      const room = place.has(path) ? path : dirname(path)
      assert.ok((place.get(room) ?? -1) > at, `${folder} may import ${path}, which is not further down`)
    }
  }
})

test('what a room may import is something that it imports', () => {
  const isUsed = (folder: string, path: string) =>
    files
      .filter((file) => dirname(file) === folder && file.endsWith('.ts'))
      .some((file) =>
        [...read(file).matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].some(([, from = '']) => {
          const target = resolve('/', folder, from).slice(1)
          return target === path || dirname(target) === path
        })
      )
  const unused = rooms.flatMap(({ folder, may }) =>
    may.filter((path) => !isUsed(folder, path)).map((path) => `${folder} → ${path}`)
  )
  assert.deepEqual(unused, [])
})

/**
 * Where VXLAN is part of a vocabulary and no knowledge about leases and routes: kernel objects and their codec, one
 * condition, examples.
 */
const VXLAN_VOCABULARY = [
  ...['daemon/state/object.ts', 'daemon/state/text.ts', 'daemon/kernel/requests.ts'],
  ...['decode', 'encode', 'error', 'uapi'].map((name) => `daemon/kernel/netlink/${name}.ts`),
  'daemon/health/conditions.ts',
  ...['net-conf', 'net-conf.schema', 'schemas.generated'].map((name) => `daemon/config/${name}.ts`),
  'daemon/stores/kubernetes/record.ts'
]

/** Files outside daemon/backend/ whose code, comments left out, matches. */
function matchingOutsideBackend(pattern: RegExp): readonly string[] {
  const code = (path: string) => read(path).replaceAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, '')
  return files.filter((path) => /^daemon\/(?!backend\/).*\.ts$/.test(path) && pattern.test(code(path)))
}

test('a backend is one file: outside daemon/backend/ no code knows VXLAN, but for the vocabulary', () => {
  assert.deepEqual(matchingOutsideBackend(/vxlan|vtep|\bvni\b/i).toSorted(), VXLAN_VOCABULARY.toSorted())
})

test('outside daemon/backend/ no code has the name of a device that a backend makes or adopts', () => {
  assert.deepEqual(matchingOutsideBackend(/\b(weft6?|flannel(-v6)?)\\?\.(\*|\d|\\d|\$\{)/), [])
})

test('daemon/ has at its root only what starts and wires the daemon', () => {
  const atRoot = files.filter((path) => dirname(path) === 'daemon')
  assert.deepEqual(atRoot.toSorted(), [
    'daemon/daemon.ts',
    'daemon/main.ts',
    'daemon/pod-context.ts',
    'daemon/probes.ts'
  ])
})

test('no file exports an instance or keeps a variable of its own: what lasts is made where the daemon is put together, and handed in', () => {
  const lasting = files
    .filter((path) => /^(daemon|plugins|ipam)\/.*(?<!\.d|\.generated)\.ts$/.test(path))
    .flatMap((path) =>
      [
        ...read(path).matchAll(
          /^(?:export const (\w+)(?: *:[^\n=]+)? = (?![(<]|async\b)(?=[^\n]*\bnew [A-Z])|(?:export )?(?:let|var) (\w+))/gm
        )
      ].map(([, instance, variable]) => `${path} ${instance ?? variable}`)
    )
  assert.deepEqual(lasting, [])
})

/** Exported constants that a call makes, and why they are no instances. */
const MADE_BY_A_CALL = [
  // Questions about an address, each made from its prefixes: functions without state.
  ...['isLoopback', 'isLinkLocal', 'isMulticast'].map((name) => `ipam/address.ts ${name}`)
]

test('no file exports what a call has made: it would be an instance that every importer shares', () => {
  const made = files
    .filter((path) => /^(daemon|plugins|ipam)\/.*(?<!\.d|\.generated)\.ts$/.test(path))
    .flatMap((path) =>
      [...read(path).matchAll(/^export const (\w+)(?: *:[^\n=]+)? =\s+(?:await )?[a-z][\w.]*(?:<[^\n]*>)?\(/gm)].map(
        ([, name]) => `${path} ${name}`
      )
    )
  assert.deepEqual(made, MADE_BY_A_CALL)
})

test('foreign functions are declared in one file, which checks their buffers', () => {
  const users = files.filter((path) => /^(daemon|plugins|ipam)\/.*\.ts$/.test(path) && read(path).includes("'koffi'"))
  assert.deepEqual(users, ['daemon/os/foreign-function.ts', 'daemon/os/readable.ts'])
  assert.doesNotMatch(read('daemon/os/readable.ts'), /koffi\.(?!node\.poll)\w/)
})

const imported: readonly (readonly [path: string, from: string, allowed: boolean])[] = [
  ['daemon/state/x.ts', '../../ipam/address.ts', true],
  ['daemon/state/x.ts', '../kernel/kernel.ts', false],
  ['daemon/state/x.ts', 'node:fs', false],
  ['daemon/backend/x.ts', '../lease/lease.ts', true],
  ['daemon/backend/x.ts', '../stores/etcd/store.ts', false],
  ['daemon/backend/x.ts', '@grpc/grpc-js', false],
  ['daemon/os/x.ts', 'koffi', true],
  ['daemon/kernel/x.ts', '../lease/lease.ts', false],
  ['daemon/kernel/x.ts', 'netlink', false],
  ['daemon/kernel/x.ts', 'koffi', false],
  ['daemon/kernel/netlink/x.ts', 'koffi', false],
  ['daemon/kernel/nftables/x.ts', 'koffi', false],
  ['daemon/stores/etcd/x.ts', '@grpc/grpc-js', true],
  ['daemon/stores/etcd/x.ts', '../../kube/api.ts', false],
  ['daemon/stores/x.ts', 'node:fs', false],
  ['daemon/lease/acquire.ts', '@grpc/grpc-js', false],
  ['daemon/pod/x.ts', '../kernel/kernel.ts', false],
  ['daemon/pod/x.ts', './chained/verbs.ts', false],
  ['daemon/ctl/x.ts', '../reconcile/reconciler.ts', false],
  ['daemon/ctl/x.ts', '../api/server.ts', false],
  ['daemon/peers/conflicts.ts', 'node:timers', false],
  ['plugins/types/x.ts', '../../daemon/base/error.ts', false],
  ['ipam/x.ts', 'node:fs', false],
  ['ipam/reservations.ts', 'node:fs', true],
  ['daemon/x.ts', './main.ts', false],
  ['daemon/x.ts', 'koffi', false],
  ['test/unit/x.ts', '../../daemon/main.ts', false]
]
for (const [path, from, allowed] of imported) {
  test(`${path} ${allowed ? 'may' : 'may not'} import ${from}`, () => {
    assert.equal(forbidden(path, `import type { x } from '${from}'\nexport const y: x = 1`), !allowed)
  })
}
