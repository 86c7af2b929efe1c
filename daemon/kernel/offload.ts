// Reads and sets the transmit checksum offload of devices. Each call waits for the rtnl lock, in a thread of the pool.
import { offloadsChecksums, setChecksumOffload } from '../os/checksum-offload.ts'
import { CallFailed, errnoNumber } from '../os/libc.ts'
import type { Change } from '../state/difference.ts'
import type { Outcome } from '../state/kernel.ts'
import type { Offload } from '../state/object.ts'
import { refused } from './netlink/error.ts'

/** `undefined`: there is no such device, or it has no such setting. */
export async function readOffload(device: string): Promise<Offload | undefined> {
  try {
    return { kind: 'offload', device, transmitChecksum: await offloadsChecksums(device) }
  } catch (error) {
    if (error instanceof CallFailed) return undefined
    throw error
  }
}

/** One outcome for each change, in their order. A setting can't be removed, and one that has the value is not set. */
export async function applyOffloads(changes: readonly Change[]): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = []
  for (const change of changes)
    outcomes.push(
      change.do === 'put' && change.object.kind === 'offload' ? await putOffload(change.object) : { change }
    )
  return outcomes
}

async function putOffload(object: Offload): Promise<Outcome> {
  const { device, transmitChecksum } = object
  const instead: Offload = { ...object, transmitChecksum: !transmitChecksum }
  const change: Change = { do: 'put', object, instead }
  try {
    if ((await offloadsChecksums(device)) === transmitChecksum) return { change, unchanged: true }
    await setChecksumOffload(device, transmitChecksum)
    // The request is acknowledged also where a driver has the setting fixed.
    if ((await offloadsChecksums(device)) === transmitChecksum) return { change }
    return { change, error: refused('change', object, errnoNumber('EOPNOTSUPP')) }
  } catch (error) {
    if (error instanceof CallFailed) return { change, error: refused('change', object, error.errno) }
    throw error
  }
}
