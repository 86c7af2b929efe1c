// `weftctl pods`: the attachments on this node.
import { type HostPortAnswer, type PodAnswer, type PodsAnswer, readAnswer } from '../api/answers.ts'
import { columns } from './columns.ts'
import type { Command } from './command.ts'

/** Digits of a container id, as docker and crictl show it. */
const ID_SHOWN = 12

export const pods: Command = {
  about: 'the pods of this node: container, interface, addresses, host ports, limits',
  exits: '0 all have their network namespace, 1 some do not',
  read(answer) {
    const { pods } = readAnswer<PodsAnswer>(answer, { pods: 'array' })
    if (pods.length === 0) return { text: 'no pods on this node\n', exit: 0 }
    const heading = [
      'POD',
      'CONTAINER',
      'INTERFACE',
      'NETWORK',
      'ADDRESSES',
      'HOST-PORTS',
      'BANDWIDTH',
      'LINK',
      'NETNS'
    ]
    const text = columns([heading, ...pods.map(row)])
    return { text, exit: pods.some(({ netns }) => netns === 'gone') ? 1 : 0 }
  }
}

const row = (pod: PodAnswer): readonly string[] => [
  pod.pod,
  pod.container.slice(0, ID_SHOWN),
  pod.interface,
  pod.network,
  pod.addresses.join(','),
  pod.hostPorts.map(hostPortText).join(','),
  bandwidthText(pod.bandwidth),
  pod.link,
  pod.netns
]

/** `tcp/127.0.0.1:8080->80`. */
export function hostPortText({ protocol, hostPort, containerPort, hostIp }: HostPortAnswer): string {
  const at = hostIp === undefined ? '' : `${hostIp.includes(':') ? `[${hostIp}]` : hostIp}:`
  return `${protocol}/${at}${hostPort}->${containerPort}`
}

/** `in:10M,out:1.5G`, bits per second. */
export function bandwidthText({ ingress, egress }: PodAnswer['bandwidth']): string {
  const parts = [
    ingress === undefined ? '' : `in:${short(ingress)}`,
    egress === undefined ? '' : `out:${short(egress)}`
  ]
  return parts.filter((part) => part !== '').join(',')
}

function short(bits: number): string {
  for (const [unit, size] of [
    ['G', 1e9],
    ['M', 1e6],
    ['k', 1e3]
  ] as const) {
    if (bits >= size) return `${Math.round((bits / size) * 100) / 100}${unit}`
  }
  return String(bits)
}
