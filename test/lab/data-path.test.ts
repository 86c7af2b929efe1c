// A backend that this kernel can't do is refused with what is missing and the types that it can do; alloc needs nothing.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../daemon/backend/registry.ts'
import { lacking } from '../../daemon/kernel/features.ts'
import { Cluster, linesOf, PREFIX } from './cluster.ts'
import { inOwnNamespace, run } from './kernel-namespace.ts'
import { until } from './run.ts'

const isRoot = process.getuid?.() === 0
const skip = isRoot ? false : 'needs root'

inOwnNamespace()

/** Whether ip(8) can make an ipip device here: what a trial must find out by itself. */
function hasIpip(): boolean {
  try {
    run('ip', 'link', 'add', 'try0', 'type', 'ipip', 'local', '127.0.0.1')
    run('ip', 'link', 'del', 'try0')
    return true
  } catch {
    return false
  }
}

test('a trial agrees with ip(8), names the type and leaves nothing behind', { skip }, async () => {
  const [path] = registry(BACKENDS).configure('ipip', {}).dataPaths
  const expected = hasIpip() ? [] : [/^this kernel can't make an ipip \(EOPNOTSUPP/]
  const links = run('ip', '-o', 'link')
  const missing = await lacking(path?.features ?? [])
  assert.equal(missing.length, expected.length)
  for (const [at, pattern] of expected.entries()) assert.match(missing[at]?.message ?? '', pattern)
  assert.equal(run('ip', '-o', 'link'), links)
})

test('a type that this kernel can’t do is refused with those that it can; a corrected one is taken at once', {
  skip: skip || (hasIpip() && 'this kernel has ipip'),
  timeout: 300_000
}, async () => {
  const network = { Network: '10.244.0.0/16', Backend: { Type: 'ipip' } }
  await using cluster = await Cluster.start({ hosts: [1], start: false, network })
  const daemon = await cluster.join(cluster.node(1), { wait: false })
  const refused = async () => {
    const { body } = await daemon.readyz()
    return body.includes('KERNEL_FEATURE') && body
  }
  const body = await until(refused, { what: 'KERNEL_FEATURE in /readyz' })
  assert.match(
    body,
    /Backend\.Type is \\?"ipip\\?", and this kernel can't make an ipip .*can do: .*vxlan, host-gw.*alloc/
  )
  assert.equal((await cluster.etcd.list(`${PREFIX}/subnets/`)).size, 0)
  await cluster.etcd.put(`${PREFIX}/config`, '{"Network":"10.244.0.0/16","Backend":{"Type":"alloc"}}')
  await daemon.ready()
})

test('alloc: a lease, subnet.env and pods, and no device or route to other nodes', {
  skip,
  timeout: 300_000
}, async () => {
  const network = { Network: '10.244.0.0/16', Backend: { Type: 'Alloc' } }
  await using cluster = await Cluster.start({ hosts: [2], network })
  const [first] = [cluster.node(1)]
  const pod = await cluster.pod(first)
  const [subnet] = await linesOf(first, 'sed', '-n', 's/^FLANNEL_SUBNET=//p', '/run/flannel/subnet.env')
  assert.equal(subnet?.split('.').slice(0, 3).join(), pod.address.split('.').slice(0, 3).join())
  assert.match((await linesOf(first, 'cat', '/run/flannel/subnet.env')).join(), /FLANNEL_MTU=1500/)
  assert.deepEqual(await linesOf(first, 'ip', 'route', 'show', 'proto', '87'), [])
  const links = await linesOf(first, 'ip', '-o', 'link')
  assert.deepEqual(
    links.filter((line) => /: weft[.-]/.test(line)),
    []
  )
})
