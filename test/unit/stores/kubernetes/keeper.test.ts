// Our own node in the API: what is done when the API server takes no patch at once.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { parseNetConf } from '../../../../daemon/config/net-conf.ts'
import { KubeApi } from '../../../../daemon/kube/api.ts'
import { KubeAccess } from '../../../../daemon/kube/credentials.ts'
import type { LeaseRequest, StoreDeps } from '../../../../daemon/lease/store.ts'
import { identityOf, NodeKeeper } from '../../../../daemon/stores/kubernetes/keeper.ts'
import { parseIp } from '../../../../ipam/address.ts'
import { silent } from '../../logs.ts'

const node = { kind: 'Node', metadata: { name: 'n1', uid: 'u1' }, spec: { podCIDRs: ['10.244.3.0/24'] } }
const conflict = { kind: 'Status', status: 'Failure', reason: 'Conflict', message: 'the object has been modified' }

/** An API server whose node others write so often that it refuses so many patches. */
async function busyServer(refusals: number) {
  const patches: string[] = []
  const server = createServer((request, response) => {
    if (request.method === 'PATCH') patches.push(request.url ?? '')
    const isRefused = request.method === 'PATCH' && patches.length <= refusals
    response.writeHead(isRefused ? 409 : 200, { 'content-type': 'application/json', connection: 'close' })
    request.resume().on('end', () => response.end(JSON.stringify(isRefused ? conflict : node)))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { patches, address, [Symbol.dispose]: () => void server.close() }
}

test('a patch that meets a conflict is sent again', async () => {
  using server = await busyServer(2)
  const report: StoreDeps['report'] = { raise: () => undefined, clear: () => undefined }
  const access = await KubeAccess.open({ server: server.address, from: 'this test', insecure: false }, () => 0)
  await using api = new KubeApi(access, report)
  const options = { nodeName: 'n1', prefix: 'flannel.alpha.coreos.com/', setNetworkUnavailable: false }
  await using holding = new NodeKeeper(api, options, { log: silent, report })
  const wish: LeaseRequest = {
    node: 'n1',
    network: parseNetConf('{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}'),
    publicIp: { 4: parseIp('192.0.2.1') ?? assert.fail() },
    previous: {},
    backendType: 'host-gw',
    namesOurDevice: () => false,
    backendData: () => ({})
  }
  const lease = await holding.acquire(wish, AbortSignal.timeout(30_000))
  assert.equal(lease.node, 'n1')
  assert.deepEqual(
    server.patches,
    Array.from({ length: 3 }, () => '/api/v1/nodes/n1/status?fieldManager=weftd')
  )
})

test('the node is that of the flag, of NODE_NAME, of the pod that POD_NAME and POD_NAMESPACE name, or the host', async () => {
  const variables = { POD_NAME: 'weft-x2', POD_NAMESPACE: 'weft' }
  const server = createServer((request, response) => {
    const isPod = request.url === '/api/v1/namespaces/weft/pods/weft-x2'
    const name = isPod ? '' : (request.url?.split('/').at(-1) ?? '')
    const body = isPod ? { kind: 'Pod', spec: { nodeName: 'of-the-pod' } } : { ...node, metadata: { name, uid: 'u1' } }
    response.writeHead(200, { 'content-type': 'application/json', connection: 'close' })
    request.resume().on('end', () => response.end(JSON.stringify(body)))
    asked.push(request.url ?? '')
  })
  const asked: string[] = []
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const report: StoreDeps['report'] = { raise: () => undefined, clear: () => undefined }
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const access = await KubeAccess.open({ server: address, from: 'this test', insecure: false }, () => 0)
  await using api = new KubeApi(access, report)
  const askedFor = async (identity: ReturnType<typeof identityOf>) => {
    const options = { ...identity, prefix: 'flannel.alpha.coreos.com/', setNetworkUnavailable: false }
    await using keeper = new NodeKeeper(api, options, { log: silent, report })
    asked.length = 0
    await keeper.published('Host.example', AbortSignal.timeout(30_000))
    return asked.at(-1)?.replace(/.*\/nodes\//, '')
  }
  assert.equal(await askedFor(identityOf('flag', { ...variables, NODE_NAME: 'variable' })), 'flag')
  assert.equal(await askedFor(identityOf(undefined, { ...variables, NODE_NAME: 'variable' })), 'variable')
  assert.equal(await askedFor(identityOf(undefined, variables)), 'of-the-pod')
  assert.equal(await askedFor(identityOf(undefined, {})), 'host.example')
  server.close()
})
