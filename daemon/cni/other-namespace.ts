// Calls from another network namespace than weftd's. CNI's host is the namespace of the caller, and weftd can make
// links only in its own: a call that would change the wrong host is refused, and a DEL does nothing.
import type { Call } from '../../plugins/cni/types.ts'
import type { CniRequest } from '../../plugins/protocol.ts'
import { forwardingPluginNamed, pluginNamed } from '../../plugins/types/registry.ts'
import { WeftError } from '../base/error.ts'
import type { PodContext } from '../pod/context.ts'
import type { Printed } from './flannel-forwarding.ts'

/**
 * The answer to a call that must do nothing here; `undefined`: it is to be served. A DEL succeeds, since the runtime
 * sends it after the refused ADD: nothing was made for it, and an attachment of the same name here is another one.
 * Errors: NAMESPACE_OTHER.
 */
export function answerElsewhere(
  { namespace, log }: Pick<PodContext, 'namespace' | 'log'>,
  call: Exclude<Call, { readonly verb: 'VERSION' }>,
  request: Pick<CniRequest, 'namespace'>
): Printed | undefined {
  const caller = request.namespace
  const plugin = pluginNamed(call.plugin) ?? forwardingPluginNamed(call.plugin)
  // Absent from an older executable.
  if (caller === undefined || caller === namespace || plugin === undefined || plugin.anyNamespace) return undefined
  const what = `${call.plugin} was called in the network namespace ${caller}, and weftd runs in ${namespace}`
  if (call.verb === 'DEL') {
    log.warn({ network: call.network, container: call.containerId, ifname: call.ifname }, `${what}: nothing to remove`)
    return { stderr: `${what}: nothing was removed\n` }
  }
  throw new WeftError(
    'NAMESPACE_OTHER',
    `${what}: it can set up containers only for its own host`,
    'run weftd and the container runtime in the same network namespace; "readlink /proc/PID/ns/net" tells which a process is in'
  )
}
