// The rooms of the code: reads scripts/rooms.json and writes the import rules in biome.json and the file list of
// tsconfig.pure.json.
//
//   node scripts/rooms.ts          writes both files
//   node scripts/rooms.ts --print  prints the table for ARCHITECTURE.md
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'

export type Room = {
  /** Relative to the repository; the rule applies to its own files, not to folders inside it. */
  readonly folder: string
  readonly job: string
  /** Folders and single files that its files may import, besides each other: rooms further down the table. */
  readonly may: readonly string[]
  /** `node` for Node's own modules, and npm packages. */
  readonly packages?: readonly string[]
  /** Compiled without Node's types, and no package: every file but `nodeFiles`. */
  readonly pure?: boolean
  /** Files of a pure room that use Node. */
  readonly nodeFiles?: readonly string[]
  /** Files of another room that are pure. */
  readonly pureFiles?: readonly string[]
}

const root = fileURLToPath(new URL('../', import.meta.url))
export const rooms: readonly Room[] = JSON.parse(readFileSync(join(root, 'scripts/rooms.json'), 'utf8'))

type Override = {
  readonly includes: readonly string[]
  readonly linter: {
    readonly rules: { readonly style: { readonly noRestrictedImports: unknown } & Readonly<Record<string, unknown>> }
  }
}

/** biome's negated globs for the import specifiers of one room's files. */
function allowedBy({ folder, may }: Room, packages: readonly string[]): readonly string[] {
  const specifier = (path: string) => {
    const relative = posix.relative(folder, path)
    return relative.startsWith('.') ? relative : `./${relative}`
  }
  return [
    '!./*.ts',
    ...may.map((path) => `!${specifier(/\.\w+$/.test(path) ? path : `${path}/*.ts`)}`),
    ...packages.flatMap((name) => (name === 'node' ? ['!node:*', '!node:*/**'] : [`!${name}`, `!${name}/**`]))
  ]
}

const override = (includes: readonly string[], allowed: readonly string[], message: string): Override => ({
  includes,
  linter: {
    rules: {
      style: {
        noRestrictedImports: {
          level: 'error',
          options: { patterns: [{ group: ['**', ...allowed, '**/main.ts'], message }] }
        }
      }
    }
  }
})

/** One override a folder, and one for its files that have a rule of their own. */
function importRules(): readonly Override[] {
  return rooms.flatMap((room) => {
    const { folder, pure = false, packages = [], nodeFiles = [], pureFiles = [] } = room
    const message = (of: string) => `${of} may not import this: see scripts/rooms.json.`
    const own = override([`${folder}/*.ts`], allowedBy(room, pure ? [] : packages), message(`${folder}/`))
    const others = pure
      ? { files: nodeFiles, packages: ['node', ...packages], kind: 'A file of' }
      : { files: pureFiles, packages: [], kind: 'A pure file of' }
    if (others.files.length === 0) return [own]
    const paths = others.files.map((file) => `${folder}/${file}`)
    return [own, override(paths, allowedBy(room, others.packages), message(`${others.kind} ${folder}/`))]
  })
}

/** What tsc compiles without Node's types. */
export function pureFiles(): { readonly include: readonly string[]; readonly exclude: readonly string[] } {
  const pure = rooms.filter((room) => room.pure)
  return {
    include: rooms.flatMap(({ folder, pure, pureFiles = [] }) =>
      pure ? [`${folder}/*.ts`] : pureFiles.map((file) => `${folder}/${file}`)
    ),
    exclude: pure.flatMap(({ folder, nodeFiles = [] }) => nodeFiles.map((file) => `${folder}/${file}`))
  }
}

const BIOME = join(root, 'biome.json')
const PURE = join(root, 'tsconfig.pure.json')

/** biome.json with the rooms' rules replaced; its other overrides stay, after them. */
export function biomeText(): string {
  const biome = JSON.parse(readFileSync(BIOME, 'utf8')) as { overrides: readonly Override[] }
  const isRoom = ({ includes }: Override) =>
    rooms.some(({ folder }) => includes.every((path) => posix.dirname(path) === folder)) &&
    !includes.some((path) => basename(path) === 'main.ts')
  const others = biome.overrides.filter((each) => !isRoom(each))
  return formatted('biome.json', { ...biome, overrides: [...importRules(), ...others] })
}

export function pureText(): string {
  const options = { extends: './tsconfig.json', compilerOptions: { types: [] } }
  return formatted('tsconfig.pure.json', { ...options, ...pureFiles() })
}

const formatted = (name: string, value: unknown): string =>
  execFileSync(join(root, 'node_modules/.bin/biome'), ['format', `--stdin-file-path=${name}`], {
    cwd: root,
    encoding: 'utf8',
    input: JSON.stringify(value)
  })

/** The table as Markdown. */
export function roomTable(): string {
  const cell = ({ pure, nodeFiles = [], pureFiles = [] }: Room) => {
    if (pure) return nodeFiles.length === 0 ? 'yes' : `yes, but ${nodeFiles.join(', ')}`
    return pureFiles.join(', ')
  }
  return [
    '| room | pure | job |',
    '| --- | --- | --- |',
    ...rooms.map((room) => `| \`${room.folder}/\` | ${cell(room)} | ${room.job} |`)
  ].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes('--print')) process.stdout.write(`${roomTable()}\n`)
  else {
    writeFileSync(BIOME, biomeText())
    writeFileSync(PURE, pureText())
  }
}
