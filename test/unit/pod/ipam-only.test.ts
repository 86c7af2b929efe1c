// Plugins that give addresses and make no interface: what GC frees is in use no longer.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ownerOf } from '../../../daemon/attachment/identity.ts'
import { gcAddresses } from '../../../daemon/pod/ipam-only.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { rangeSets } from '../../../ipam/pool.ts'
import type { Attachment } from '../../../plugins/attachment.ts'
import { podContext } from './context.ts'

test('an attachment whose reserved address a GC frees is in use no longer, one that the runtime lists still is', async (t) => {
  const dataDir = mkdtempSync(join(tmpdir(), 'weft-ipam-only-'))
  t.after(() => rmSync(dataDir, { recursive: true }))
  const context = podContext()
  const { attachments, networks } = context
  const sets = rangeSets([[{ subnet: parsePrefix('10.20.0.0/24') ?? assert.fail() }]])
  const who = (containerId: string) => ({ network: 'net1', containerId, ifname: 'eth0' })
  for (const each of [who('gone'), who('running')]) {
    await networks.reservations(dataDir, 'net1').reserve(each, sets)
    attachments.reserved.add(ownerOf(each))
  }
  await gcAddresses(context, { network: 'net1', ipam: { dataDir } } as Attachment, [who('running')])
  assert.deepEqual([attachments.isInUse(who('gone')), attachments.isInUse(who('running'))], [false, true])
})

test('a reservation that names no interface counts for all of its container, and for no other one', () => {
  const { attachments } = podContext()
  const owner = (containerId: string, ifname: string) => ownerOf({ network: 'net1', containerId, ifname })
  for (const each of [owner('a', 'eth0'), owner('a', 'eth1'), owner('ab', 'eth0')]) attachments.reserved.add(each)
  attachments.forgetReserved({ network: 'net1', containerId: 'a' })
  assert.deepEqual([...attachments.reserved], [owner('ab', 'eth0')])
})
