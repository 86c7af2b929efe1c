// The objects of deploy/, read for the tests about them.
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { DaemonSet } from 'kubernetes-types/apps/v1.js'
import type { ConfigMap, Namespace, ServiceAccount } from 'kubernetes-types/core/v1.js'
import type { ClusterRole, ClusterRoleBinding, Role, RoleBinding } from 'kubernetes-types/rbac/v1.js'
import { parseAllDocuments } from 'yaml'

export const deployFolder = fileURLToPath(new URL('../../../deploy/', import.meta.url))

export type Manifest =
  | Namespace
  | ServiceAccount
  | ClusterRole
  | ClusterRoleBinding
  | Role
  | RoleBinding
  | ConfigMap
  | DaemonSet

/** The objects of a text of YAML documents. Errors: what is not valid YAML, duplicate keys among it. */
export function objectsOf<T = Manifest>(text: string): readonly T[] {
  return parseAllDocuments(text).flatMap((document) => {
    if (document.errors.length > 0) throw new Error(document.errors.map(String).join('; '))
    const object = document.toJS() as T | null
    return object === null ? [] : [object]
  })
}

/** What `kubectl apply -f deploy/` reads there, in its order. */
export const manifestFiles: readonly string[] = readdirSync(deployFolder)
  .filter((name) => /\.(ya?ml|json)$/.test(name))
  .sort()

export const manifests: readonly Manifest[] = manifestFiles.flatMap((name) =>
  objectsOf(readFileSync(deployFolder + name, 'utf8'))
)

/** The only object of a kind: `only<DaemonSet>('DaemonSet')`. */
export function only<T extends Manifest>(kind: NonNullable<T['kind']>): T {
  const found = manifests.filter((object): object is T => object.kind === kind)
  if (found.length !== 1 || found[0] === undefined) throw new Error(`${found.length} objects of kind ${kind}`)
  return found[0]
}
