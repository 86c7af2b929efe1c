// When sockets of probes are opened and closed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ProbeSockets } from '../../../daemon/underlay/probe-sockets.ts'

test('a capture is opened anew while answers are missing, since its device may be another one by then', () => {
  const open: string[] = []
  let opened = 0
  const socket = (name: string) => {
    open.push(name)
    opened++
    return {
      send() {},
      flush() {},
      watch() {},
      drain() {},
      [Symbol.dispose]: () => void open.splice(open.indexOf(name), 1)
    }
  }
  const sockets = new ProbeSockets({ open: () => socket('raw'), capture: ({ device }) => socket(device) }, 0, () => {})
  for (let now = 0; now < 700; now += 70) {
    sockets.tidy(now)
    sockets.capture('weft.1', 4, now)
    assert.deepEqual(open, ['weft.1'])
  }
  assert.equal(opened, 2)
  sockets.tidy(2_000)
  assert.deepEqual(open, [])
})
