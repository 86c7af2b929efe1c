// The lease stores by their --store name. A store and its packages are loaded only when it is in use.
import { WeftError } from '../base/error.ts'
import type { Store, StoreDeps } from '../lease/store.ts'

/** The options that stores read, under their names in daemon/cli/flag-table.ts. */
export type StoreOptions = {
  readonly store: string
  readonly etcdEndpoints: readonly string[]
  readonly etcdPrefix: string
  readonly etcdKeyfile?: string | undefined
  readonly etcdCertfile?: string | undefined
  readonly etcdCafile?: string | undefined
  readonly etcdUsername?: string | undefined
  readonly etcdPassword?: string | undefined
  /** Minutes. */
  readonly subnetLeaseRenewMargin: number
  readonly embeddedPath: string
  readonly netConfigPath: string
  readonly nodeName?: string | undefined
  readonly kubeApiUrl?: string | undefined
  readonly kubeconfigFile?: string | undefined
  readonly kubeAnnotationPrefix: string
  readonly setNodeNetworkUnavailable: boolean
  readonly networkPolicyEnforced: boolean
  /** The Kubernetes store finds its pod, node and API server in variables. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

type Loader = (options: StoreOptions, deps: StoreDeps) => Promise<Store>

const STORES: { readonly [name: string]: Loader } = {
  etcd: async (options, deps) => {
    const { EtcdStore } = await import('./etcd/store.ts')
    const { etcdEndpoints: endpoints, etcdPrefix: prefix, subnetLeaseRenewMargin: renewMarginMinutes } = options
    const { etcdKeyfile: keyFile, etcdCertfile: certFile, etcdCafile: caFile } = options
    const { etcdUsername: username, etcdPassword: password } = options
    return new EtcdStore({ endpoints, prefix, renewMarginMinutes, keyFile, certFile, caFile, username, password }, deps)
  },
  embedded: async (options, deps) => {
    const { EmbeddedStore } = await import('./embedded/store.ts')
    return new EmbeddedStore({ path: options.embeddedPath, netConfigPath: options.netConfigPath }, deps)
  },
  kubernetes: async (options, deps) => {
    const { KubernetesStore } = await import('./kubernetes/store.ts')
    const { identityOf } = await import('./kubernetes/keeper.ts')
    const { kubeApiUrl, kubeconfigFile, netConfigPath, environment } = options
    const { setNodeNetworkUnavailable, networkPolicyEnforced } = options
    const annotationPrefix = options.kubeAnnotationPrefix
    return KubernetesStore.open(
      {
        ...identityOf(options.nodeName, environment),
        ...{ kubeApiUrl, kubeconfigFile, environment },
        ...{ annotationPrefix, netConfigPath, setNodeNetworkUnavailable, networkPolicyEnforced }
      },
      deps
    )
  }
}

/** Opens the store that the options name. Errors: OPTION_INVALID, and what the store's constructor throws. */
export async function openStore(options: StoreOptions, deps: StoreDeps): Promise<Store> {
  const load = Object.hasOwn(STORES, options.store) ? STORES[options.store] : undefined
  if (load !== undefined) return load(options, deps)
  const names = Object.keys(STORES).join(' or ')
  throw new WeftError('OPTION_INVALID', `--store is ${options.store}; this weftd has ${names}`, `choose ${names}`)
}
