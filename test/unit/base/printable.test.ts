// No text from outside reaches a terminal, a probe or the log raw, and no password of a URL is printed: the functions,
// then every output of weftd and weftctl with hostile texts in all that comes from outside.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import { WeftError } from '../../../daemon/base/error.ts'
import { printable, printableJson, printableValue, withoutPasswords } from '../../../daemon/base/printable.ts'
import { readiness } from '../../../daemon/health/http.ts'
import { lease, SmallDaemon } from '../ctl/small-daemon.ts'

/** Clears the screen, by two bytes and by one of C1; forges a line; reverses what follows; hides a character. */
const HOSTILE = 'x\u001b[2J\u009b31m\nINJECTED\r\u202egnp\u200b\u2028\ud800 http://root:hunter2@etcd:2379'

function assertPrintable(text: string, what: string): void {
  const raw = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u.exec(text.replaceAll('\n', ''))
  assert.equal(raw, null, `${what}: ${JSON.stringify(text)}`)
  assert.doesNotMatch(text, /^INJECTED/m, what)
  assert.doesNotMatch(text, /hunter2/, what)
}

test('controls and invisible characters are escaped, all other text stays', () => {
  assertPrintable(printable(HOSTILE), 'one line')
  assert.equal(printable('a\u001b[2J\n\tb'), 'a\\u001b[2J\\n\\tb')
  for (const text of ['', 'größer als 10 %: "a" → \\n', 'http://etcd:2379/a@b', '漢字🐙'])
    assert.equal(printable(text), text)
  assert.equal(printable(printable(HOSTILE)), printable(HOSTILE))
})

test('a JSON text keeps its values and its line breaks', () => {
  const value = { text: 'a\u001b\u009b\n\u202e🐙', 'k\u009b': [1] }
  const json = printableJson(`${JSON.stringify(value, null, 2)}\n`)
  assert.deepEqual(JSON.parse(json), value)
  assertPrintable(json, 'JSON')
  assert.deepEqual(printableValue({ 'k\n': ['a\n', 1, null] }), { 'k\\n': ['a\\n', 1, null] })
})

test('user and password of a URL are left out, whatever the password contains', () => {
  for (const [text, shown] of [
    ['http://u:p@h:2379', 'http://(not shown)@h:2379'],
    ['https://token@h', 'https://(not shown)@h'],
    ['http://a:1,http://u:p@b:2', 'http://a:1,http://(not shown)@b:2'],
    ['http://u:p@ss@h/x', 'http://(not shown)@h/x'],
    ['http://u:p/ss@h', 'http://(not shown)@h'],
    ['etcd at "http://u:p@h" and x@y', 'etcd at "http://(not shown)@h" and x@y'],
    ['http://h:80/a mail@example.com', 'http://h:80/a mail@example.com']
  ] as const)
    assert.equal(withoutPasswords(text), shown)
})

test('an error is one printable line, message and cure', () => {
  const { message, cure } = new WeftError('A', HOSTILE, HOSTILE)
  assertPrintable(message + cure, 'an error')
  assert.equal(`${message}${cure}`.includes('\n'), false)
})

test('what weftctl, /readyz, events, the log and CNI errors print is printable', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  daemon.health.raise('STORE_UNREACHABLE', HOSTILE, HOSTILE)
  daemon.health.raise('CONFIG_INVALID', HOSTILE)
  await daemon.send({
    kind: 'list',
    leases: [lease(1), lease(2, { node: HOSTILE }), lease(3, { backendType: HOSTILE })]
  })
  const args = `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=${HOSTILE.replaceAll(';', '')}`
  const refused = await daemon.cni('ADD', {
    env: { CNI_ARGS: args },
    conf: { ipam: { type: 'host-local', x: HOSTILE } }
  })
  assert.notEqual(refused.exit, 0)
  const questions = [['status'], ['nodes'], ['pods'], ['diff'], ['why', 'pod', HOSTILE], ['why', 'node', HOSTILE]]
  for (const words of [
    ...questions,
    ...questions.map((each) => [...each, '--json']),
    [HOSTILE],
    ['why', HOSTILE, 'x']
  ]) {
    const { out, complaints } = await daemon.weftctl(...words)
    assertPrintable(out, `weftctl ${words[0]}, output`)
    assertPrintable(complaints, `weftctl ${words[0]}, errors`)
  }
  assertPrintable(readiness(daemon.health, false).body + readiness(daemon.health, true).body, '/readyz')
  for (const line of [...daemon.said, ...daemon.events]) assertPrintable(line, 'log or event')
})

test('a line of the log is printable whatever its fields are, and still JSON', () => {
  let line = ''
  const write = (text: string) => {
    line += text
  }
  const log = pino({ base: null, hooks: { streamWrite: printableJson } }, { write })
  log.info({ path: HOSTILE, err: new Error(HOSTILE), [HOSTILE]: 1 }, HOSTILE)
  assertPrintable(line, 'the log')
  assert.equal(line.split('\n').length, 2)
  assert.match(String(JSON.parse(line).path), /^x.\[2J.31m\nINJECTED/)
})
