// weftd on two hosts with --kube-subnet-mgr and a real control plane that hands out podCIDRs; no kubelets: the node
// objects are made here.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { EVENT_PACE } from '../../daemon/kube/events.ts'
import { Lab } from '../lab/hosts.ts'
import { until } from '../lab/run.ts'
import { Weftd } from '../lab/weftd.ts'
import { conditionOf, type KubeObject } from './api.ts'
import { ControlPlane } from './control-plane.ts'
import { noControlPlane } from './parts.ts'
import { annotationsOn, nodeObject, weftdRole } from './store-scene.ts'

const slow = { deadlineMs: 90_000 }

test('two nodes join by their podCIDRs, follow each other, and outlive the API server', {
  skip: noControlPlane(),
  timeout: 400_000
}, async () => {
  await using lab = await Lab.start({ hosts: [2] })
  await using plane = await ControlPlane.start(lab)
  const { api } = plane
  await plane.apply(...weftdRole('weftd'))
  const conf = '{"Network":"10.244.0.0/16","SubnetLen":99,"Backend":{"Type":"vxlan"}}'
  const [h1, h2] = lab.hosts
  assert.ok(h1 && h2)
  const start = async (host: typeof h1) => {
    const kubeconfig = await plane.kubeconfig('weftd', 'weftd')
    writeFileSync(host.path('/run/net-conf.json'), conf)
    const args = ['--kube-subnet-mgr', `--kubeconfig-file=${kubeconfig}`, '--net-config-path=/run/net-conf.json']
    return Weftd.start(host, { args, env: { NODE_NAME: host.name }, wait: false })
  }

  await using first = await start(h1)
  await until(async () => /no node h1/.test((await first.readyz()).body), { what: 'word of the missing node', ...slow })
  await api.call('POST', '/api/v1/nodes', nodeObject('h1'))
  await first.ready(slow.deadlineMs)
  const network = async (name: string) => conditionOf(await api.node(name), 'NetworkUnavailable')
  await until(async () => (await network('h1'))?.status === 'False', {
    what: 'NetworkUnavailable=False on h1',
    ...slow
  })

  await api.call('POST', '/api/v1/nodes', nodeObject('h2'))
  await using second = await start(h2)
  await second.ready(slow.deadlineMs)
  const subnet = async (name: string) => String((await api.node(name)).spec.podCIDR)
  const peer = await subnet('h2')
  const route = async () => (await h1.exec('ip', ['route', 'show', 'proto', '87', peer])).stdout
  await until(async () => (await route()) !== '', { what: 'the route to h2 on h1', ...slow })
  assert.equal(annotationsOn(await api.node('h2'))['public-ip'], h2.address)

  // An outage is more than a line in a log: it is told where an administrator looks, as soon as that can be reached.
  type Event = KubeObject & { readonly reason: string; readonly message: string }
  const said = async () => (await api.list<Event>('/api/v1/namespaces/default/events')).map(({ reason }) => reason)
  await plane.stopApi()
  await until(async () => /does not respond/.test((await first.readyz()).body), { what: 'STORE_UNREACHABLE', ...slow })
  assert.equal((await first.readyz()).status, 200)
  assert.notEqual(await route(), '')
  // What is over before it has settled is no event.
  const since = async () =>
    Date.parse(String(/STORE_UNREACHABLE .*?since ([^)]+)\)/.exec((await first.readyz()).body)?.[1]))
  const lasted = async () => Date.now() - (await since()) > EVENT_PACE.settleMs + 1_000
  await until(lasted, { what: 'an outage that is told', ...slow })
  await plane.startApi()
  await until(async () => (await said()).includes('StoreUnreachable'), { what: 'an event of the outage', ...slow })

  await second.stop()
  await api.remove('/api/v1/nodes/h2')
  await until(async () => (await route()) === '', { what: 'the route of the deleted node to go', ...slow })
})
