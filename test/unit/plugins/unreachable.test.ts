// The error when weftd can't be reached: socket, reason and cure, with a code that makes the runtime retry.
import { equal, match } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { printError } from '../../../plugins/cni/error.ts'
import { verbs } from '../../../plugins/cni/version.ts'
import { type Failure, unreachable } from '../../../plugins/unreachable.ts'

const failures: readonly (readonly [Failure, RegExp])[] = [
  [{ kind: 'missing', reason: 'No such file or directory' }, /there is no socket \/run\/w\.sock/],
  [{ kind: 'refused', reason: 'Connection refused' }, /no process listens on \/run\/w\.sock/],
  [{ kind: 'denied', reason: 'Permission denied' }, /permission denied on \/run\/w\.sock$/],
  [{ kind: 'deadline', reason: 'no answer in time' }, /did not answer on \/run\/w\.sock within 5000 ms/],
  [{ kind: 'closed', reason: 'reset' }, /closed the connection on \/run\/w\.sock/],
  [{ kind: 'failed', reason: 'host not found' }, /\/run\/w\.sock failed: host not found/]
]

for (const [failure, words] of failures) {
  describe(failure.kind, () => {
    for (const verb of verbs.filter((each) => each !== 'VERSION')) {
      test(`${verb} names the socket and the reason in code ${verb === 'STATUS' ? 50 : 11}`, () => {
        const error = unreachable(failure, '/run/w.sock', 5000, verb)
        equal(error.code, verb === 'STATUS' ? 50 : 11)
        match(error.message, words)
        match(error.details, /systemctl status weftd|run the plugin as root/)
      })
    }
    test('DEL says nothing that containerd takes for "already deleted"', () => {
      const printed = printError(unreachable(failure, '/run/w.sock', 5000, 'DEL'), '1.0.0', 'DEL')
      equal(/not found|no such file or directory/i.test(printed), false, printed)
    })
  })
}

test('a missing socket in a user namespace is not said to be only a weftd that does not run', () => {
  const details = (userNamespace: string) =>
    unreachable({ kind: 'missing', reason: '', userNamespace }, '/run/w.sock', 5000, 'ADD').details
  match(details('user:[4026532100]'), /in a user namespace.*Run the engine as root/)
  for (const first of ['user:[4026531837]', '']) equal(/user namespace/.test(details(first)), false)
})
