// Objects compared with Kubernetes' OpenAPI schemas, as TypeScript types (package kubernetes-types): unknown and
// missing fields, wrong types, wrong words.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

type Typed = { readonly apiVersion?: string; readonly kind?: string }

/** apiVersion → the module with the types of its kinds. Custom resources have none there. */
const MODULES: Readonly<Record<string, string>> = {
  v1: 'core/v1',
  'apps/v1': 'apps/v1',
  'rbac.authorization.k8s.io/v1': 'rbac/v1'
}

const root = fileURLToPath(new URL('../../../', import.meta.url))

/**
 * What the compiler says about the objects, a line for each fault; empty when all are right. Errors: a kind without a
 * schema.
 */
export function schemaFaults(objects: readonly Typed[]): string {
  const lines = objects.map((object, at) => {
    const module = MODULES[object.apiVersion ?? '']
    if (module === undefined) throw new Error(`no schema is known for ${object.apiVersion} ${object.kind}`)
    return `export const object${at}: import('kubernetes-types/${module}').${object.kind} = ${JSON.stringify(object, undefined, 1)}`
  })
  const folder = mkdtempSync(join(tmpdir(), 'weft-schema-'))
  try {
    writeFileSync(join(folder, 'objects.ts'), lines.join('\n'))
    const compilerOptions = {
      strict: true,
      noEmit: true,
      module: 'nodenext',
      target: 'es2025',
      types: [],
      skipLibCheck: true
    }
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['objects.ts'] }))
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
    const { status, stdout, stderr } = spawnSync(join(root, 'node_modules/.bin/tsc'), ['-p', folder], {
      encoding: 'utf8'
    })
    if (status === 0) return ''
    return `${stdout}${stderr}`.trim() || `tsc ended with ${status}`
  } finally {
    rmSync(folder, { recursive: true })
  }
}
