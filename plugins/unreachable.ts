// The error when weftd can't be reached: socket, reason and cure, with a code that makes the runtime retry.
import { CniError, cniCode } from './cni/error.ts'
import type { Verb } from './cni/version.ts'
import type { Answer } from './host.d.ts'

export type Failure = Exclude<Answer, { readonly kind: 'line' }> & {
  /** The executable's, as the kernel names it. */
  readonly userNamespace?: string
}

const checkWeftd =
  'Check "systemctl status weftd", or the weftd pod on this node ("kubectl get pods -A -o wide"), and its log. The runtime will retry.'

/** user_namespaces(7): the first one has always this inode (PROC_USER_INIT_INO). */
const FIRST_USER_NAMESPACE = 'user:[4026531837]'

/** Code 11 (try again), for STATUS 50 (not available). */
export function unreachable(failure: Failure, socketPath: string, deadlineMs: number, verb: Verb): CniError {
  const code = verb === 'STATUS' ? cniCode.notAvailable : cniCode.tryAgain
  const [message, details] = words(failure, socketPath, deadlineMs)
  const isRootless = failure.kind === 'missing' && !['', FIRST_USER_NAMESPACE].includes(failure.userNamespace ?? '')
  return new CniError(message, { code, details: isRootless ? `${details} ${rootless}` : details })
}

const rootless =
  'This process is in a user namespace: a rootless container engine has a /run of its own, without weftd. Run the engine as root.'

function words(failure: Failure, socketPath: string, deadlineMs: number): readonly [message: string, details: string] {
  switch (failure.kind) {
    case 'missing':
      return [`weftd is not running on this node: there is no socket ${socketPath}`, checkWeftd]
    case 'refused':
      return [
        `weftd is not running on this node: no process listens on ${socketPath}`,
        `It ended without removing its socket. ${checkWeftd}`
      ]
    case 'denied':
      return [`permission denied on ${socketPath}`, 'The socket is for root only: run the plugin as root.']
    case 'deadline':
      return [
        `weftd did not answer on ${socketPath} within ${deadlineMs} ms`,
        `It is overloaded or stuck. ${checkWeftd}`
      ]
    case 'closed':
      return [
        `weftd closed the connection on ${socketPath} without an answer (${failure.reason})`,
        `It was stopped or restarted. ${checkWeftd}`
      ]
    case 'failed':
      return [`connecting to weftd on ${socketPath} failed: ${failure.reason}`, checkWeftd]
  }
}
