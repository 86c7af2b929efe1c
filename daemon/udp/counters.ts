// What the proxy has carried and dropped since it began.

/** `oversize`: larger than the path to the node allows. */
export type Counters = {
  sent: number
  sentOctets: number
  received: number
  receivedOctets: number
  /** Packets to an address of no lease. */
  noPeer: number
  /** Packets from a host that is no node, or from a pod's address by another node than the pod's. */
  foreignSender: number
  malformed: number
  oversize: number
  sendFailed: number
  /** The device did not take them: it is down. */
  notDelivered: number
}

export const noCounters = (): Counters => ({
  ...{ sent: 0, sentOctets: 0, received: 0, receivedOctets: 0 },
  ...{ noPeer: 0, foreignSender: 0, malformed: 0, oversize: 0, sendFailed: 0, notDelivered: 0 }
})
