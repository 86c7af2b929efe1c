// Files that a configuration names, under a weftd whose root directory is not the host's.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cniError } from '../../../daemon/cni/error-codes.ts'
import { type Mounts, withHostFiles } from '../../../daemon/cni/host-files.ts'
import type { Attachment } from '../../../plugins/attachment.ts'

const mountinfo = [
  '22 1 0:20 / / rw - overlay overlay rw',
  '23 22 8:1 /var/lib/cni /var/lib/cni rw - ext4 /dev/sda1 rw',
  '24 22 8:1 /srv /srv/my\\040pools rw - ext4 /dev/sda1 rw'
].join('\n')
const container: Mounts = { root: () => '50:7', mountinfo: () => mountinfo }
const host = { root: '8:2' }
const attachment = (dataDir: string, more: object = {}) =>
  ({ ipam: { dataDir, requested: [], ranges: [], routes: [], ...more } }) as unknown as Attachment

test('a data directory that no mount brings into the container is refused for good, and DEL does not fail for it', () => {
  for (const dataDir of ['/opt/pools', '/var/lib/cnix', '/srv'])
    for (const verb of ['ADD', 'CHECK', 'STATUS'])
      assert.throws(
        () => withHostFiles(attachment(dataDir), verb, host, container),
        (error) => cniError(error).code === 7 && cniError(error).message.includes(dataDir)
      )
  for (const verb of ['DEL', 'GC']) withHostFiles(attachment('/opt/pools'), verb, host, container)
})

test('one that is mounted is taken, and any where weftd has the root of its caller', () => {
  for (const dataDir of ['/var/lib/cni/networks', '/var/lib/cni', '/srv/my pools/a'])
    assert.equal(withHostFiles(attachment(dataDir), 'ADD', host, container).ipam?.dataDir, dataDir)
  withHostFiles(attachment('/opt/pools'), 'ADD', { root: '50:7' }, container)
  // An executable that does not say so.
  withHostFiles(attachment('/opt/pools'), 'ADD', {}, container)
})

test('resolvConf is what the caller has read on the host, or its reason', () => {
  const named = attachment('/var/lib/cni', { resolvConf: '/etc/resolv.conf' })
  const text = 'nameserver 10.0.0.53\nsearch a.example'
  const read = withHostFiles(named, 'ADD', { ...host, resolvConf: { text } }, container)
  assert.deepEqual(read.dns, { nameservers: ['10.0.0.53'], search: ['a.example'] })
  assert.equal(read.ipam?.resolvConf, undefined)
  const own = { ...named, dns: { nameservers: ['192.0.2.1'] } }
  assert.deepEqual(withHostFiles(own, 'ADD', { ...host, resolvConf: { text } }, container).dns, own.dns)
  const refused = () => withHostFiles(named, 'ADD', { ...host, resolvConf: { reason: 'EACCES' } }, container)
  assert.throws(refused, (error) => cniError(error).code === 7 && /resolv\.conf.*EACCES/.test(cniError(error).message))
})
