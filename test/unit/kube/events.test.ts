// Events: conditions' codes in the spelling that kubectl's users know, one object for each kind of trouble, and no
// memory of all that ever were.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Log } from '../../../daemon/base/log.ts'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import type { KubeRequest } from '../../../daemon/kube/connections.ts'
import { type EventContent, EventWriter, reasonOfCode } from '../../../daemon/kube/events.ts'

test('POD_CIDR_MISSING is PodCidrMissing, and every code makes a reason of its own', () => {
  assert.equal(reasonOfCode('POD_CIDR_MISSING'), 'PodCidrMissing')
  const reasons = Object.keys(CONDITIONS).map(reasonOfCode)
  for (const reason of reasons) assert.match(reason, /^([A-Z][a-z]+)+$/)
  assert.equal(new Set(reasons).size, reasons.length)
})

const about = (name: string): EventContent => ({
  regarding: { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', namespace: 'shop', name, uid: `uid-${name}` },
  ...{ type: 'Warning', reason: 'NetworkPolicyNotEnforced', message: 'nobody enforces it' }
})

test('what is said again about an object is counted up, and of thousands of objects only the latest are remembered', async () => {
  const asked: KubeRequest[] = []
  const api = {
    attempt: async (request: KubeRequest) => {
      asked.push(request)
      return { status: request.verb === 'POST' ? 201 : 200, body: {} }
    }
  }
  const writer = new EventWriter(api, {} as Log, () => 'n1')
  const verbsOf = async (...names: readonly string[]) => {
    asked.length = 0
    for (const name of names) await writer.write(about(name), 0, AbortSignal.timeout(10_000))
    return asked.map(({ verb }) => verb)
  }
  assert.deepEqual(await verbsOf('first', 'second', 'first', 'first'), ['POST', 'POST', 'PATCH', 'PATCH'])
  assert.equal(asked.at(-1)?.body?.count, 3)
  await verbsOf(...Array.from({ length: 999 }, (_, at) => `policy-${at}`))
  assert.deepEqual(await verbsOf('first', 'second'), ['PATCH', 'POST'])
})
