// The seven versions, their order and their verbs.
import { equal } from 'node:assert/strict'
import { test } from 'node:test'
import {
  allowsVerb,
  compareVersions,
  isAtLeast,
  isSupported,
  supportedVersions,
  versionNumbers
} from '../../../../plugins/cni/version.ts'

test('versions are compared by release, not as text', () => {
  equal(compareVersions('0.3.1', '0.4.0') < 0, true)
  equal(compareVersions('1.0.0', '1.0.0'), 0)
  equal(isAtLeast('1.1.0', '0.4.0'), true)
  equal(isAtLeast('0.2.0', '0.3.0'), false)
})

test('only the exact text of a version is supported', () => {
  for (const version of supportedVersions) equal(isSupported(version), true)
  for (const other of ['', '1.1', '01.1.0', ' 1.1.0', '0.5.0', '1.2.0']) equal(isSupported(other), false)
})

test('numbers are read from a.b.c only', () => {
  for (const wrong of ['', '1', '1.1', '1.1.0.0', 'a.b.c', '1..0', '1.1.-1', '1.1.0 ', '1.1.1e1'])
    equal(versionNumbers(wrong), undefined)
  equal(versionNumbers('1.10.2')?.join(' '), '1 10 2')
})

test('a verb is allowed from its version on, for versions we do not know too', () => {
  equal(allowsVerb('0.3.9', 'CHECK'), false)
  equal(allowsVerb('0.10.0', 'CHECK'), true)
  equal(allowsVerb('1.0.9', 'GC'), false)
  equal(allowsVerb('2.0.0', 'STATUS'), true)
  equal(allowsVerb('what', 'STATUS'), undefined)
  equal(allowsVerb('what', 'ADD'), true)
})
