// Errors as a runtime meets them: every code of ours in CNI's numbers, those that STATUS has for itself, and the
// TRACEPARENT of a call in its log line.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { WeftError } from '../../../daemon/base/error.ts'
import { CallHistory } from '../../../daemon/cni/call-history.ts'
import { cniCalls } from '../../../daemon/cni/calls.ts'
import { cniError, failed } from '../../../daemon/cni/error-codes.ts'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import { CniError, cniCode } from '../../../plugins/cni/error.ts'
import type { CniRequest } from '../../../plugins/protocol.ts'
import { heard } from '../logs.ts'
import { podContext } from '../pod/context.ts'

const numberOf = (code: string, verb?: Parameters<typeof cniError>[1]) =>
  cniError(new WeftError(code, 'what', 'do this'), verb).code

describe('an error of weftd', () => {
  test('is one that the runtime tries again, when a condition is its reason', () => {
    for (const code of Object.keys(CONDITIONS)) {
      if (code === 'KERNEL_REFUSED') continue
      assert.equal(numberOf(code, 'ADD'), cniCode.tryAgain, code)
    }
  })

  test('is 50 to STATUS, and 51 where pods that run may be cut off too', () => {
    for (const code of ['STARTING', 'POOL_EXHAUSTED', 'NO_LEASE', 'OVERLOADED', 'STATE_UNWRITABLE'])
      assert.equal(numberOf(code, 'STATUS'), 50, code)
    for (const code of ['LEASE_LOST', 'NO_INTERFACE']) {
      assert.equal(numberOf(code, 'STATUS'), 51, code)
      assert.equal(numberOf(code, 'ADD'), 11, code)
    }
    assert.equal(numberOf('RANGE_INVALID', 'STATUS'), 7)
  })

  test('has the number of the specification where there is one, else one of ours from 100 on', () => {
    for (const [code, number] of [
      ['CONTAINER_UNKNOWN', 3],
      ['RANGE_INVALID', 7],
      ['PREVIOUS_MISSING', 7],
      ['SANDBOX_GONE', 8],
      ['SANDBOX_INVALID', 8],
      ['LOCK_HELD', 11],
      ['STOPPING', 11]
    ] as const)
      assert.equal(numberOf(code), number, code)
    for (const code of ['KERNEL_REFUSED', 'DIFFERENT', 'PORT_TAKEN', 'what nobody listed'])
      assert.ok(numberOf(code) >= 100, code)
  })

  test('says its cure in the message and its cause, once, in the details', () => {
    const { message, details } = cniError(new WeftError('X', 'tried y', 'do z', { cause: new Error('EROFS') }))
    assert.deepEqual([message, details], ['tried y. Cure: do z', 'EROFS'])
    assert.equal(cniError(new WeftError('X', 'tried y: EROFS', 'do z', { cause: new Error('EROFS') })).details, '')
  })

  test('that is several names each with its cure, under their number where they have the same', () => {
    const full = new WeftError('STATE_UNWRITABLE', 'a can not be written', 'free space', { cause: new Error('ENOSPC') })
    const lock = new WeftError('LOCK_HELD', 'b is locked', 'end its holder')
    const refused = new WeftError('KERNEL_REFUSED', 'c was refused', 'look at it')
    const { code, message, details } = cniError(new AggregateError([full, lock, full]), 'DEL')
    assert.deepEqual(
      [code, message, details],
      [11, 'a can not be written. Cure: free space; b is locked. Cure: end its holder', 'ENOSPC']
    )
    assert.equal(cniError(new AggregateError([full, new AggregateError([refused])]), 'GC').code, cniCode.internal)
    assert.equal(cniError(new AggregateError([new AggregateError([refused])]), 'GC').code, 100)
  })

  test('of a file depends on why it can not be read: what is no file stays so, what does not answer may', () => {
    const numberFor = (code: string, cause: string, verb?: 'STATUS') =>
      cniError(
        new WeftError(code, 'what', 'do this', { cause: Object.assign(new Error(cause), { code: cause }) }),
        verb
      ).code
    for (const code of ['SUBNET_FILE_UNREADABLE', 'RESOLV_CONF_UNREADABLE', 'SYSCTL_NOT_ALLOWED']) {
      for (const cause of ['EINVAL', 'EISDIR', 'EFBIG', 'EACCES', 'ELOOP'])
        assert.equal(numberFor(code, cause), 7, cause)
      for (const cause of ['ETIMEDOUT', 'EMFILE', 'EIO', 'ESTALE']) assert.equal(numberFor(code, cause), 11, cause)
      assert.equal(numberFor(code, 'ENOENT'), code === 'SUBNET_FILE_UNREADABLE' ? 11 : 7)
    }
    assert.equal(numberFor('SUBNET_FILE_UNREADABLE', 'ENOENT', 'STATUS'), 50)
    assert.equal(numberFor('SUBNET_FILE_UNREADABLE', 'EISDIR', 'STATUS'), 7)
  })

  test('that was not expected is reported with a cure', () => {
    const { code, message, details } = cniError(new RangeError('too far', { cause: new Error('away') }))
    assert.deepEqual([code, message], [999, 'too far: away'])
    assert.match(details, /the log of weftd/)
  })

  test('of DEL has no words that containerd would take for success', () => {
    const { stdout } = failed(new CniError('x not found', { code: 7 }), { env: { CNI_COMMAND: 'DEL' }, stdin: '{}' })
    assert.doesNotMatch(stdout, /not found/)
  })
})

type Line = readonly [level: string, fields: Readonly<Record<string, unknown>>, message: string]

/** What verbs that touch nothing need. */
function loggedCalls() {
  const lines: Line[] = []
  const log = heard((level, fields, message) => lines.push([level, { ...fields }, message]))
  const context = podContext({ log, now: () => 0 })
  return { lines, serve: cniCalls(context, new CallHistory(Date.now)) }
}

const request = (env: Readonly<Record<string, string>>, stdin = '{"cniVersion":"1.1.0","name":"n"}'): CniRequest => ({
  ...{ v: 1, plugin: 'weft', stdin, deadlineMs: 1_000, did: [] },
  env: { CNI_COMMAND: 'VERSION', ...env }
})

describe('the trace of a call', () => {
  const trace = { TRACEPARENT: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', TRACESTATE: 'a=1' }

  test('stands in the line of a call that succeeded, and in that of one that failed', async () => {
    const { lines, serve } = loggedCalls()
    await serve(request(trace))
    await serve(request({ ...trace, CNI_COMMAND: 'FOO' }))
    const traced = { traceparent: trace.TRACEPARENT, tracestate: undefined }
    assert.deepEqual(
      lines.map(([level, { traceparent, tracestate, verb }]) => [level, verb, { traceparent, tracestate }]),
      [
        ['info', 'VERSION', traced],
        ['warn', 'FOO', traced]
      ]
    )
  })

  test('that is malformed, endless or absent changes nothing but the line', async () => {
    const { lines, serve } = loggedCalls()
    const plain = await serve(request({}))
    assert.equal(lines.length, 0)
    assert.deepEqual(await serve(request({ TRACEPARENT: 'x'.repeat(10_000) })), plain)
    const { traceparent } = lines.at(-1)?.[1] ?? {}
    assert.equal(String(traceparent).length, 512)
  })
})
