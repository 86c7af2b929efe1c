// Bundles an entry with all its packages into one ES module, and puts the native add-ons beside it: for node, and for
// the executable.
import { copyFileSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin } from 'esbuild'
import { pageSources } from '../../daemon/ctl/page/sources.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const [entry, folder] = process.argv.slice(2)
if (entry === undefined || folder === undefined) throw new Error('usage: bundle.ts ENTRY FOLDER')

const find = createRequire(import.meta.url)
const folderOf = (name: string, from = find): string => dirname(from.resolve(`${name}/package.json`))
const koffiNative = `@koromix/koffi-linux-${process.arch}`
const addons = { 'koffi.node': join(folderOf(koffiNative), `linux_${process.arch}`, 'koffi.node') }

/** The packages look for their add-ons beside themselves; in a bundle they use addon.ts. */
const nativeAddons: Plugin = {
  name: 'native addons',
  setup(bundler) {
    const loader = JSON.stringify(join(root, 'scripts/executable/addon.ts'))
    const module = (contents: string) => ({ contents, resolveDir: root, loader: 'js' as const })
    const load = (addon: keyof typeof addons) => `require(${loader}).loadAddon('${addon}', __dirname)`
    // koffi's ES module creates its own `require`, which a bundler cannot follow; it can follow the CommonJS one.
    bundler.onResolve({ filter: /^koffi$/ }, () => ({ path: find.resolve('koffi') }))
    bundler.onResolve({ filter: /^@koromix\/koffi-/ }, ({ path }) => ({ path, namespace: 'koffi-addon' }))
    bundler.onLoad({ filter: /.*/, namespace: 'koffi-addon' }, ({ path }) =>
      module(path === koffiNative ? `module.exports = ${load('koffi.node')}` : 'throw new Error("not in this bundle")')
    )
  }
}

/** In a bundle the files of weftctl page are texts. */
const page: Plugin = {
  name: 'files of the page',
  setup(bundler) {
    bundler.onLoad({ filter: /\/ctl\/page\/sources\.ts$/ }, () => ({
      contents: `export const pageSources = () => (${JSON.stringify(pageSources())})`,
      loader: 'js'
    }))
  }
}

mkdirSync(folder, { recursive: true })
const result = await build({
  entryPoints: [entry],
  outfile: join(folder, 'weft.mjs'),
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node26',
  // Not minified: a crash prints the source line, and names are all that a stack trace has.
  legalComments: 'none',
  absWorkingDir: root,
  nodePaths: [join(root, 'node_modules')],
  plugins: [nativeAddons, page],
  // CommonJS packages inside an ES module; in the executable only built-in modules can be required.
  banner: {
    js: [
      "import { createRequire as weftRequire } from 'node:module'",
      'const require = weftRequire(process.execPath), __filename = process.execPath, __dirname = import.meta.dirname'
    ].join('\n')
  },
  logLevel: 'warning'
})
if (result.warnings.length > 0) throw new Error('esbuild warns (above): settle it, or say here why it does no harm')
for (const [name, path] of Object.entries(addons)) copyFileSync(path, join(folder, name))
