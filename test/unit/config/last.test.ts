// What the cure of a missing configuration says to write: what this node used last, whatever it contains.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { configurationArgument, configurationToWrite, shownText } from '../../../daemon/config/last.ts'

const last = (text: string) => ({ text, path: '/run/weft/lease.json' })

test('the last configuration is quoted on one line, for a shell too, and the example only where there is none', () => {
  const used = last('{\n  "Network": "10.42.0.0/16",\n  "Note": "it\'s"\n}')
  assert.equal(configurationToWrite(used), `{"Network":"10.42.0.0/16","Note":"it's"}, which this node used last,`)
  assert.match(
    configurationArgument(used),
    /^'\{"Network":"10\.42\.0\.0\/16","Note":"it'\\''s"\}' \(the one that this node used last\)$/
  )
  assert.match(configurationArgument(undefined), /^'\{"Network":"10\.244\.0\.0\/16",/)
  assert.match(configurationToWrite(undefined), /^\{"Network":"10\.244\.0\.0\/16",/)
})

test('one that is too long or no JSON is read from its file', () => {
  for (const text of [JSON.stringify({ Network: 'x'.repeat(1_000) }), '{'])
    assert.match(configurationArgument(last(text)), /^"\$\(jq -r \.configuration \/run\/weft\/lease\.json\)"/)
})

test('one that has a secret is read from its file, and not quoted', () => {
  const used = last(JSON.stringify({ Network: '10.42.0.0/16', Backend: { Type: 'wireguard', Psk: 'hidden' } }))
  for (const text of [configurationArgument(used), configurationToWrite(used)]) {
    assert.match(text, /jq -r \.configuration \/run\/weft\/lease\.json/)
    assert.doesNotMatch(text, /hidden/)
  }
})

test('a message shows the beginning of one that is long, and nothing of one that has a secret, valid or not', () => {
  assert.match(shownText(JSON.stringify({ Network: 'x'.repeat(1_000) })), /^\{"Network":"x+…$/)
  for (const text of ['{"Psk":"hidden"}', '{"Psk":"hidden"', '{"\\u0050SK":"hidden"}'])
    assert.doesNotMatch(shownText(text), /hidden/)
})
