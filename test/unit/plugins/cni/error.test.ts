// The error object as runtimes read it (cni.md 1.6).
import { deepEqual, equal, match } from 'node:assert/strict'
import { test } from 'node:test'
import { asCniError, CniError, printError, rewordForDel } from '../../../../plugins/cni/error.ts'

test('an error is one JSON line with version, code, message and details', () => {
  const printed = printError(new CniError('no pool', { code: 11, details: 'wait' }), '0.4.0')
  deepEqual(JSON.parse(printed), { cniVersion: '0.4.0', code: 11, msg: 'no pool', details: 'wait' })
  equal(printed.indexOf('\n'), printed.length - 1)
})

test('empty details are left out', () => {
  deepEqual(JSON.parse(printError(new CniError('x', { code: 4 }))), { cniVersion: '1.1.0', code: 4, msg: 'x' })
})

test('what is thrown by others gets code 999 and keeps its text and cause', () => {
  const cause = new RangeError('too far')
  deepEqual([asCniError(cause).code, asCniError(cause).message, asCniError(cause).cause], [999, 'too far', cause])
  equal(asCniError('text').message, 'text')
  const own = new CniError('x', { code: 7 })
  equal(asCniError(own), own)
})

test('an error of DEL has none of the words that make containerd forget it', () => {
  for (const words of [
    'link not found',
    'open /x: No such file or directory',
    'NOT FOUND not found',
    'nono such file or directory',
    'not founDNot Foundnot not found',
    // The lower case of these is longer than they are.
    'İİİİİİİİİİnot found',
    'İ: No Such File or Directory: İİ not found'
  ]) {
    const printed = printError(new CniError(words, { code: 999, details: words }), '1.0.0', 'DEL')
    equal(/not found|no such file or directory/i.test(printed), false, printed)
    match(printError(new CniError(words, { code: 999 }), '1.0.0', 'ADD'), /not found|no such file or directory/i)
  }
  equal(rewordForDel('route deleted'), 'route deleted')
  equal(
    rewordForDel('İ, Not Found; ENOENT: no such file or directory, open'),
    'İ, missing; ENOENT: it does not exist (ENOENT), open'
  )
})

test('an error of which nobody knows whose it is may be one of DEL', () => {
  const printed = printError(new CniError('link not found', { code: 999, details: 'not found' }))
  deepEqual(JSON.parse(printed), { cniVersion: '1.1.0', code: 999, msg: 'link missing', details: 'missing' })
})

test('an error of DEL may be long and full of such words', () => {
  equal(rewordForDel('not found '.repeat(100_000)), 'missing '.repeat(100_000))
})
