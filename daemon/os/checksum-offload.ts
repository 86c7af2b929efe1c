// Transmit checksum offload of a device (SIOCETHTOOL of <linux/ethtool.h>). The calls wait for the kernel's rtnl lock, so
// they run in the thread pool.
import { addressOf } from './foreign-function.ts'
import { CallFailed, close, datagramSocket, errnoNumber, ioctlInterfaceInThread } from './libc.ts'

const SIOCETHTOOL = 0x8946
const GET = 0x16
const SET = 0x17

/** A struct ifreq that points to a struct ethtool_value. Errors: CallFailed, with ENODEV when there is no such device. */
async function request(device: string, command: number, value: number): Promise<number> {
  // A name that is cut off would be another device's.
  if (device === '' || Buffer.byteLength(device) > 15) throw new CallFailed('ioctl', errnoNumber('ENODEV'))
  const data = Buffer.allocUnsafeSlow(8)
  data.writeUInt32LE(command)
  data.writeUInt32LE(value, 4)
  const ifreq = Buffer.alloc(40)
  ifreq.write(device)
  ifreq.writeBigUInt64LE(addressOf(data), 16)
  const fd = datagramSocket(4)
  try {
    await ioctlInterfaceInThread(fd, SIOCETHTOOL, ifreq)
  } finally {
    close(fd)
  }
  // Reading it here also keeps it alive during the call.
  return data.readUInt32LE(4)
}

export const offloadsChecksums = async (device: string): Promise<boolean> => (await request(device, GET, 0)) !== 0
export const setChecksumOffload = async (device: string, on: boolean): Promise<void> =>
  void (await request(device, SET, on ? 1 : 0))
