// What this kernel can do, found by trying in an empty throw-away network namespace: kernels of small boards lack drivers, and say so only when asked.
import { parseIp } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import { CallFailed, close, errnoName, netlinkSocket } from '../os/libc.ts'
import type { Link } from '../state/object.ts'
import { insideNew } from './namespace.ts'
import { createLink, type Resolve } from './netlink/encode.ts'
import { moduleCure } from './netlink/error.ts'
import { NETLINK_NETFILTER } from './netlink/nfnetlink.ts'
import { RequestSocket } from './netlink/requests.ts'

export type Feature = 'vxlan' | 'bridge' | 'veth' | 'nf_tables'
/** Absent: it works. */
export type Features = { readonly [F in Feature]?: WeftError }

/** The drivers are loaded by asking, where the kernel can load modules. Errors: none, what can't be tried counts as missing. */
export async function features(): Promise<Features> {
  const found: { [F in Feature]?: WeftError } = {}
  let socket: RequestSocket
  try {
    socket = insideNew(() => new RequestSocket())
  } catch (error) {
    const why = new WeftError(
      'KERNEL_FEATURE_MISSING',
      `weftd can't make a network namespace to try the kernel: ${String(error)}`,
      'run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN',
      {
        cause: error
      }
    )
    return { vxlan: why, bridge: why, veth: why, nf_tables: why }
  }
  try {
    const links = Object.entries(trials)
    const failures = await socket.send(links.map(([, link]) => createLink(link, loopback)))
    for (const [at, [feature]] of links.entries()) {
      const failure = failures[at]
      if (failure !== undefined) found[feature as Feature] = missing(feature, failure.errno, failure.sentence)
    }
  } finally {
    socket[Symbol.dispose]()
  }
  const nfTables = netfilter()
  return nfTables === undefined ? found : { ...found, nf_tables: nfTables }
}

const loopback: Resolve = { index: () => 1, netns: () => -1 }
const local = parseIp('127.0.0.1')

const trials: { readonly [F in Exclude<Feature, 'nf_tables'>]: Link } = {
  vxlan: {
    kind: 'link',
    name: 'try-vxlan',
    form: {
      type: 'vxlan',
      vni: 1,
      port: 8472,
      local: local ?? { family: 4, value: 0n },
      parent: 'lo',
      learning: false,
      gbp: false
    }
  },
  bridge: { kind: 'link', name: 'try-bridge', form: { type: 'bridge' } },
  veth: { kind: 'link', name: 'try-veth', form: { type: 'veth', peer: { name: 'try-peer' } } }
}

/** Whether the kernel has NETLINK_NETFILTER; that nf_tables answers there is seen by the first transaction. */
function netfilter(): WeftError | undefined {
  try {
    close(netlinkSocket(NETLINK_NETFILTER))
    return undefined
  } catch (error) {
    return missing('nf_tables', error instanceof CallFailed ? error.errno : 0)
  }
}

function missing(feature: string, errno: number, sentence?: string): WeftError {
  const why = `${errnoName(errno)}${sentence === undefined ? '' : `, ${sentence}`}`
  return new WeftError('KERNEL_FEATURE_MISSING', `this kernel can't make a ${feature} (${why})`, moduleCure(feature))
}
