// Delegates of third parties: what the executable is asked to run, and what its answers come to.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { DelegateMissing, delegatesOf, RunWanted } from '../../../daemon/cni/delegates.ts'
import { CniError } from '../../../plugins/cni/error.ts'
import type { CniRequest, Done } from '../../../plugins/protocol.ts'
import { addCall } from '../plugins/calls.ts'

const delegates = (...did: readonly Done[]) => {
  const request: CniRequest = { v: 1, plugin: 'bridge', env: {}, stdin: '{"a":1}', deadlineMs: 1000, did }
  return delegatesOf(request, { ...addCall('bridge'), path: ['/opt/cni/bin'] })
}
const wantedBy = (work: () => unknown) => {
  try {
    work()
  } catch (error) {
    if (error instanceof RunWanted) return error.run
    throw error
  }
  throw new Error('nothing is to be run')
}
const ended = (exit: number, stdout: string, stderr = ''): Done => ({
  kind: 'ended',
  id: 'ADD x',
  exit,
  stdout,
  stderr
})

describe('a delegate', () => {
  test('is run by the executable, with our input and the verb', () => {
    deepEqual(
      wantedBy(() => delegates().run('x', 'ADD')),
      { id: 'ADD x', type: 'x', path: ['/opt/cni/bin'], env: { CNI_COMMAND: 'ADD' }, stdin: '{"a":1}', deadlineMs: 800 }
    )
    equal(wantedBy(() => delegates().given('{}').run('x', 'DEL')).stdin, '{}')
  })
  test('that succeeded gives what it printed', () => equal(delegates(ended(0, '{}')).run('x', 'ADD'), '{}'))
  test('that failed hands its error on unchanged', () => {
    const answer = delegates(ended(1, '{"code":11,"msg":"try again","details":"soon"}'))
    throws(() => answer.run('x', 'ADD'), { name: 'CniError', code: 11, message: 'try again', details: 'soon' })
  })
  for (const printed of ['', 'oops', '[]', '{"msg":"x"}']) {
    test(`that failed with ${JSON.stringify(printed)} is named, with what it printed`, () => {
      throws(() => delegates(ended(3, printed, 'tears')).run('x', 'ADD'), {
        code: 999,
        message: /"x".*3/,
        details: /tears/
      })
    })
  }
  test('that is not there is an error of its own', () => {
    const reason = 'failed to find plugin "x" in path [/opt/cni/bin]'
    throws(
      () => delegates({ kind: 'failed', id: 'ADD x', reason }).run('x', 'ADD'),
      (error) => {
        return error instanceof DelegateMissing && error.message === reason && error.code === 7
      }
    )
  })
  test('gets its DEL before the error of a failed ADD is reported, and the error survives in between', () => {
    const error = new CniError('no bridge', { code: 101, details: 'why' })
    const { id, env } = wantedBy(() => delegates(ended(0, '{}')).undo('x', error))
    deepEqual(env, { CNI_COMMAND: 'DEL' })
    const undone: Done = { kind: 'ended', id, exit: 0, stdout: '', stderr: '' }
    throws(() => delegates(ended(0, '{}'), undone), { code: 101, message: 'no bridge', details: 'why' })
  })
})
