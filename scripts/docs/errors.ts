// What docs/errors.md prints: every condition, every code of a WeftError, every CNI number. The conditions' words are the code's own; the rest is told here.

import { WeftError } from '../../daemon/base/error.ts'
import { cniError } from '../../daemon/cni/error-codes.ts'
import { CONDITIONS } from '../../daemon/health/conditions.ts'
import { cniCode } from '../../plugins/cni/error.ts'
import { type Failure, unreachable } from '../../plugins/unreachable.ts'
import { code, table } from './markdown.ts'

/** Codes of WeftErrors that are no conditions: what each means, and what helps. The error itself says which value, and where. */
export const ERRORS: Readonly<Record<string, readonly [means: string, cure: string]>> = {
  ADDRESS_HELD: [
    'the container holds an address of this network already',
    'the runtime must send DEL before it sends ADD again; `weftctl pods` shows who holds what'
  ],
  ADDRESS_REFUSED: [
    'an address that was asked for can not be given: it is taken, or in none of the ranges',
    'ask for one that is free, or for none'
  ],
  ANSWER_UNKNOWN: ['weftctl does not understand what weftd answers', 'use weftctl and weftd of one release'],
  ADDRESS_MISSING: [
    'a host port is to lead to an interface that has no address',
    'write the plugin behind one that gives the interface an address'
  ],
  BRIDGE_INVALID: [
    "a link of the bridge's name is no bridge, or has an address of another subnet",
    'rename that link, delete the old address, or name another bridge'
  ],
  COMMAND_UNKNOWN: [
    'weftd or weftctl knows no such command or word',
    'the message names the nearest; `weftd --help`, `weftctl --help`'
  ],
  CONTAINER_UNKNOWN: [
    'CHECK asks for a container of which nothing is left on this host',
    'restart the pod, if it still runs'
  ],
  DAEMON_RUNNING: [
    'another weftd runs in this network namespace, or with the same directory or socket',
    'stop the one that the message names; in another network namespace a weftd of its own may run, with a --state-dir of its own'
  ],
  DAEMON_UNREACHABLE: [
    'weftctl gets no answer from weftd: it does not run, or its socket may not be opened',
    'start weftd; ask as root; name the socket with --socket'
  ],
  DIFFERENT: [
    'CHECK finds an attachment not as it was set up',
    'restart the pod; what is on the host weftd puts right by itself'
  ],
  FILE_UNREADABLE: ['a file that weftd keeps can not be read', 'make it readable for weftd'],
  GATEWAY_MISSING: ['`ptp` is to connect by an address that has no gateway', 'give the address a gateway in `ipam`'],
  HTTP_LISTEN: [
    'the address of /healthz, /readyz and /metrics can not be listened on',
    'correct --healthz-ip and --healthz-port; `ss -ltnp` shows who has the port'
  ],
  INSTALL_FAILED: [
    'a plugin executable can not be put in place',
    "make the directory writable and give it room; where the system's is read-only, choose another with --cni-bin-dir and tell the runtime"
  ],
  INTERFACE_DOWN: [
    'the pair of interfaces of a new pod does not begin to work',
    "look for who sets the container's end down, or the host's; the runtime tries again"
  ],
  INTERFACE_EXISTS: [
    'the interface is there already, in the container or on the host',
    'the runtime must send DEL before it sends ADD again; otherwise delete that interface'
  ],
  INTERFACE_MISSING: [
    'a chained plugin finds no interface in the container',
    'write it behind the plugin that makes the interface'
  ],
  INTERNAL: ['a fault of weftd itself', 'report it with the log of weftd'],
  IPTABLES_FAILED: [
    'iptables, which weftd needs where other programs use legacy tables, failed',
    'run the command that the message quotes as root to see the fault'
  ],
  IPTABLES_MISSING: [
    'another program uses legacy iptables tables, and no program is installed that can read them',
    'install `iptables`, or move that program to nftables'
  ],
  KERNEL_FEATURE_MISSING: [
    'this kernel can not make something that the configuration needs',
    'load the module that the message names, or choose another backend'
  ],
  KUBECTL_FAILED: [
    'weftctl could not ask another node by kubectl',
    'see that kubectl reaches the cluster and may exec into the weft pods'
  ],
  LEASE_CONTESTED: [
    'other nodes took each subnet that this one tried to lease',
    'try again; if it stays so, look for two nodes with one public IP'
  ],
  LOCK_HELD: [
    'another process has held a lock for long: of reservations, or of a taken-over plugin',
    '`lslocks` names it; a host-local process that hangs may be ended'
  ],
  LOOPBACK_FOREIGN: ['`lo` of the container has an address that is none of loopback', 'remove that address'],
  NETLINK_MALFORMED: ['the kernel sent a message that can not be read', 'report it with `uname -r`'],
  NFTABLES_MISSING: [
    'the library libnftables can not be loaded or gives no context',
    'install `libnftables1` (Debian, Ubuntu), `nftables` (Alpine, Fedora)'
  ],
  OPTION_INVALID: [
    'a flag or variable has a value that breaks its rule, or two contradict each other',
    'the message has the rule; `weftd --help`'
  ],
  OPTION_UNKNOWN: ['there is no such flag', 'the message names the nearest; `weftd --help`'],
  OVERLOADED: [
    'weftd could not finish a call within the time that the runtime gives',
    'the runtime tries again; if it stays so, look at the log and at what keeps the kernel busy'
  ],
  MASTER_INVALID: [
    'the device that macvlan is to stand on is not there, or none is named and there is no default route',
    'name a device of this host in `master`'
  ],
  MTU_INVALID: ['an MTU is larger than that of the device below', 'make `mtu` smaller, or leave it out'],
  PORT_TAKEN: [
    'another pod of this node has the host port; the message names it',
    'delete that pod, or use another hostPort or hostIP'
  ],
  PREVIOUS_MISSING: [
    'a chained plugin was called without the result of the one before',
    'write it behind the plugin that makes the interface, in `plugins` of a .conflist'
  ],
  PROTOCOL: [
    'weftd was sent a line that it does not understand',
    'use executables, weftctl and weftd of releases that fit (versioning.md)'
  ],
  RANGE_INVALID: ['the ranges of an `ipam` contradict themselves', 'correct `ipam.ranges` in the CNI configuration'],
  RESOLV_CONF_UNREADABLE: [
    'the file that `ipam.resolvConf` names can not be read',
    'correct the path, or leave the key out'
  ],
  SANDBOX_GONE: [
    'the network namespace of the container can not be opened',
    'usually the container has gone meanwhile; if weftd runs in a container, mount the directory with HostToContainer propagation'
  ],
  SANDBOX_INVALID: [
    "what the runtime names is no network namespace, or is the host's own",
    'a pod with hostNetwork must not be handed to a network plugin'
  ],
  SOCKET_UNUSABLE: [
    'weftd can not listen on its socket',
    'see that the directory exists, is writable for root and holds nothing else of this name'
  ],
  STOPPING: ['weftd is about to end', 'the runtime tries again; if weftd stays away, look at why it was stopped'],
  SUBNET_ENV_INVALID: ['a line of subnet.env breaks its rule', 'correct or delete the file: weftd writes it anew'],
  SUBNET_FILE_UNREADABLE: [
    'the `flannel` plugin finds no subnet.env',
    'weftd writes it once this node has a subnet: `weftctl status`; or correct `subnetFile`'
  ],
  SYSCTL_NOT_ALLOWED: [
    "`tuning` is to set a sysctl that this node's list does not allow, or the list can not be read",
    'take it out, or add it to the list that the message names; make the list readable'
  ],
  UNKNOWN_QUESTION: ['weftctl asks something that this weftd does not know', 'use weftctl and weftd of one release']
}

/** Numbers of the specification, and those of ours that no code above has. */
const NUMBERS: Readonly<Record<keyof typeof cniCode, string>> = {
  incompatibleVersion: 'the version of the configuration does not fit what is asked',
  unsupportedField: 'a key asks for something that Weft does not do; the message names it',
  unknownContainer: 'CHECK: nothing is known of the container',
  environment: 'a variable that the runtime must set (CNI_…) is missing or wrong',
  inputOutput: 'standard input could not be read',
  decoding: 'what was read is not understood: standard input, a version, a message on the socket',
  configuration: 'a value in the network configuration is wrong; the message has path, value and rule',
  namespace: 'the network namespace is not there, or is none',
  tryAgain: 'a condition blocks pods for now, or weftd does not answer: the runtime tries again',
  notAvailable: 'STATUS only: an ADD would fail now',
  limitedConnectivity: 'STATUS only: an ADD would fail now, and pods that run may be cut off from other nodes',
  internal: 'anything else: a fault that should be reported, or of a plugin that somebody else wrote'
}

const numberOf = (name: string, verb: 'ADD' | 'STATUS'): number => cniError(new WeftError(name, '', ''), verb).code

/** A condition that blocks nothing may be the error of a single call all the same. */
function numbersOf(name: string, blocksAdd: boolean): string {
  const number = numberOf(name, 'ADD')
  if (blocksAdd) return `${number}, ${numberOf(name, 'STATUS')}`
  return number >= 100 && number !== cniCode.internal ? String(number) : ''
}

export const blocks = {
  conditions: () =>
    table([
      ['code', 'severity', 'blocks', 'ADD, STATUS', 'it means', 'cure'],
      ...Object.entries(CONDITIONS).map(([name, { severity, blocks, title, cure }]) => [
        code(name),
        severity,
        blocks.join(', '),
        numbersOf(name, (blocks as readonly string[]).includes('add')),
        title,
        cure
      ])
    ]),
  errors: () =>
    table([
      ['code', 'CNI', 'it means', 'cure'],
      ...Object.entries(ERRORS).map(([name, [means, cure]]) => {
        const number = numberOf(name, 'ADD')
        return [code(name), number === cniCode.internal ? '' : String(number), means, cure]
      })
    ]),
  cni: () =>
    table([
      ['number', 'it means'],
      ...Object.entries(cniCode).map(([name, number]) => [String(number), NUMBERS[name as keyof typeof cniCode]])
    ]),
  executable: () => {
    const kinds: readonly Failure['kind'][] = ['missing', 'refused', 'denied', 'deadline', 'closed', 'failed']
    const failures = kinds.map((kind): Failure => ({ kind, reason: 'REASON' }))
    return table([
      ['msg', 'details'],
      ...failures.map((failure) => {
        const { message, details } = unreachable(failure, '/run/weft/weftd.sock', 60_000, 'ADD')
        return [message, details]
      })
    ])
  }
}
