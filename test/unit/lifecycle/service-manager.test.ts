// What the service manager hears: what is waited for, READY=1 once, and the status afterwards.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { ServiceManager } from '../../../daemon/lifecycle/service-manager.ts'
import { until } from '../../lab/run.ts'
import { silent } from '../logs.ts'

function scene(send?: (text: string) => boolean) {
  const health = new Health(Date.now, () => undefined)
  const sent: string[] = []
  const manager = new ServiceManager({
    ...{ address: '/run/notify', health, log: silent },
    send: (address, text) => {
      assert.equal(address, '/run/notify')
      sent.push(text)
      return send?.(text) ?? true
    }
  })
  return { health, manager, sent }
}

test('it hears what is waited for, READY=1 when pods can be served, and then the status alone', () => {
  const { health, manager, sent } = scene()
  health.raise('STARTING', 'asking the etcd store\nfor a subnet')
  health.raise('STORE_UNREACHABLE', 'etcd at http://192.0.2.1:2379: refused')
  health.clear('STARTING')
  health.clear('STORE_UNREACHABLE')
  manager.joined()
  health.raise('LINK_DOWN', 'eth0 has no carrier')
  health.clear('LINK_DOWN')
  manager.stopping()
  assert.equal(sent[0], 'STATUS=waiting: STARTING: weftd is starting: nothing has been set up yet')
  // One line, whatever the detail has in it.
  assert.match(sent[1] ?? '', /^STATUS=waiting: STARTING: weftd is starting: asking the etcd store\S*\s?\S* a subnet$/)
  assert.match(sent[2] ?? '', /^STATUS=waiting: STARTING: .*; the lease store does not respond.*: refused$/)
  const from = sent.indexOf('READY=1\nSTATUS=ready')
  assert.ok(from > 2, sent.join('\n'))
  assert.deepEqual(
    sent.slice(0, from).filter((text) => !text.startsWith('STATUS=waiting: ')),
    []
  )
  assert.match(sent[from + 1] ?? '', /^STATUS=ready; LINK_DOWN: .*eth0 has no carrier$/)
  assert.equal(sent[from + 2], 'STATUS=ready')
  assert.match(sent[from + 3] ?? '', /^STOPPING=1\n/)
})

test('a lease that was remembered is enough, although the store does not respond', () => {
  const { health, manager, sent } = scene()
  health.raise('STORE_UNREACHABLE', 'down')
  health.clear('STARTING')
  manager.joined()
  assert.match(sent.at(-1) ?? '', /^READY=1\nSTATUS=ready; STORE_UNREACHABLE/)
})

test('without subnet.env, which Docker reads, it is not ready', () => {
  const { health, manager, sent } = scene()
  health.raise('SUBNET_FILE_UNWRITABLE', 'ENOSPC')
  health.clear('STARTING')
  manager.joined()
  assert.match(sent.at(-1) ?? '', /^STATUS=waiting: SUBNET_FILE_UNWRITABLE: .*ENOSPC$/)
  health.clear('SUBNET_FILE_UNWRITABLE')
  assert.equal(sent.at(-1), 'READY=1\nSTATUS=ready')
})

test('READY=1 is sent again when the queue was full', async () => {
  let room = false
  const { health, manager, sent } = scene(() => room)
  health.clear('STARTING')
  manager.joined()
  const refused = sent.length
  room = true
  await until(() => sent.length > refused, { what: 'the next attempt' })
  assert.match(sent.at(-1) ?? '', /^READY=1\n/)
})

test('a receiver that is gone does not end weftd, and without one nothing is sent', () => {
  const { health, manager } = scene(() => assert.fail('ECONNREFUSED'))
  health.clear('STARTING')
  manager.joined()
  const alone = new ServiceManager({ address: undefined, health, log: silent, send: () => assert.fail('sent') })
  alone.joined()
})
