// Tables for docs/errors.md: conditions, codes of WeftErrors, CNI numbers. The texts of conditions come from the code;
// the others are written here.

import { WeftError } from '../../daemon/base/error.ts'
import { cniError } from '../../daemon/cni/error-codes.ts'
import { CONDITIONS } from '../../daemon/health/conditions.ts'
import { cniCode } from '../../plugins/cni/error.ts'
import { type Failure, unreachable } from '../../plugins/unreachable.ts'
import { code, table } from './markdown.ts'

/** Codes of WeftErrors that are not conditions: meaning and cure. The error itself names the value and the place. */
export const ERRORS: Readonly<Record<string, readonly [means: string, cure: string]>> = {
  ADDRESS_HELD: [
    'the container already has an address of this network, or in routed mode another container has this address',
    'the runtime must send DEL before it sends ADD again; give networks in routed mode different addresses; `weftctl pods` shows who holds what'
  ],
  ADDRESS_REFUSED: ['a requested address is taken, or in none of the ranges', 'request a free address, or none'],
  ANSWER_UNKNOWN: ["weftctl cannot read weftd's answer", 'use weftctl and weftd of the same release'],
  ADDRESS_MISSING: [
    'a host port maps to an interface without an address',
    'chain the plugin behind one that gives the interface an address'
  ],
  BRIDGE_INVALID: [
    "a link with the bridge's name is not a bridge, or has an address of another subnet",
    'rename that link, delete the old address, or configure another bridge'
  ],
  COMMAND_UNKNOWN: [
    'weftd or weftctl has no such command or argument',
    'correct the command; `weftd --help` and `weftctl --help` list them'
  ],
  CONTAINER_UNKNOWN: [
    'CHECK for a container of which nothing is left on this host',
    'restart the pod if it is still running'
  ],
  DATA_DIR_UNREACHABLE: [
    'weftd is in a container, and the directory of ipam.dataDir is not mounted into it',
    'mount it into the container at the same path, or use a directory below /var/lib/cni'
  ],
  DAEMON_RUNNING: [
    'another weftd runs in this network namespace, or with the same directory or socket. Only one weftd can run per network namespace, even with a different --state-dir',
    'stop the other weftd; in another network namespace, run a second one with its own --state-dir'
  ],
  DAEMON_UNREACHABLE: [
    'weftctl gets no answer from weftd: it is not running, or access to its socket is denied',
    'start weftd, run weftctl as root, or set --socket'
  ],
  DIFFERENT: [
    'CHECK found an attachment that differs from how it was set up',
    'restart the pod; weftd repairs what is on the host by itself'
  ],
  FILE_UNREADABLE: ['a file that weftd keeps cannot be read', 'make it readable for weftd'],
  GATEWAY_MISSING: ['`ptp` has an address without a gateway', 'give the address a gateway in `ipam`'],
  HTTP_LISTEN: [
    'weftd cannot listen on the address of /healthz, /readyz and /metrics',
    'correct --healthz-ip and --healthz-port; `ss -ltnp` shows who has the port'
  ],
  INSTALL_FAILED: [
    'a plugin executable cannot be installed',
    "free space and make the directory writable; where the system's is read-only, set --cni-bin-dir and configure the runtime to use it"
  ],
  INTERFACE_DOWN: [
    'the veth pair of a new pod does not come up',
    'find the program that sets either end down; the runtime retries'
  ],
  INTERFACE_EXISTS: [
    'the interface already exists, in the container or on the host',
    'the runtime must send DEL before it sends ADD again; otherwise delete that interface'
  ],
  INTERFACE_MISSING: [
    'a chained plugin finds no interface in the container',
    'chain it behind the plugin that makes the interface'
  ],
  INTERNAL: ['a bug in weftd', 'report it with the log of weftd'],
  IPTABLES_FAILED: [
    'iptables, which weftd needs where other programs use legacy tables, and with --firewall=iptables, failed',
    'run the quoted command as root to see the error'
  ],
  IPTABLES_MISSING: [
    'another program uses legacy iptables tables, or --firewall=iptables asks for iptables, and it is not installed',
    'install `iptables`, or move that program to nftables'
  ],
  KERNEL_FEATURE_MISSING: [
    'the kernel lacks something that the configuration needs',
    'load the kernel module, choose another backend, or leave out the key that the error names'
  ],
  KUBECTL_FAILED: [
    'weftctl could not ask another node through kubectl',
    'check that kubectl can reach the cluster and exec into the weft pods'
  ],
  LEASE_CONTESTED: [
    'other nodes took each subnet that this node tried to lease',
    'weftd retries; if it lasts, give each node its own public IP (--public-ip)'
  ],
  UDP_PROXY_RUNNING: [
    'another `weftd udp-proxy` serves the socket in the state directory',
    'use that one, or start this one with `--replace`, which takes over from it'
  ],
  LOCK_HELD: [
    'another process holds a lock for too long: that of reservations, or of a plugin that Weft replaced',
    'end the process if it hangs; `lslocks` names it'
  ],
  LOOPBACK_FOREIGN: ['`lo` of the container has an address that is not a loopback address', 'remove that address'],
  MIGRATE_FAILED: [
    'a step of `weftctl migrate` failed; the steps before it are done, and none after it',
    'correct what the error says, then run the same command again, or go back with `weftctl migrate rollback`'
  ],
  MIGRATE_UNPROVEN: [
    'a node that was moved is not ready, or does not reach all others',
    '`weftctl status` and `weftctl peers` say why; then run the same command again, or `weftctl migrate rollback`; `--ignore-lost` where those nodes are down'
  ],
  NETLINK_MALFORMED: ['the kernel sent a message that cannot be parsed', 'report it with `uname -r`'],
  NFTABLES_MISSING: [
    'the library libnftables cannot be loaded or gives no context',
    'install `libnftables1` (Debian, Ubuntu), `nftables` (Alpine, Fedora)'
  ],
  NOT_PRIVILEGED: [
    'weftd lacks a capability that it needs, or has it in a user namespace only',
    'run it as root of the machine; in a container, add the capabilities of deploy/40-daemonset.yaml'
  ],
  OPTION_INVALID: [
    'a flag or variable has an invalid value, or two contradict each other',
    'correct the value; `weftd --help` lists the flags'
  ],
  OPTION_UNKNOWN: ['there is no such flag', 'correct the flag; `weftd --help` lists them'],
  OVERLOADED: [
    'weftd could not finish a call within the time that the runtime allows',
    'the runtime retries; if it lasts, check the log of weftd and what keeps the kernel busy'
  ],
  MASTER_INVALID: [
    'the master device of macvlan does not exist, or none is configured and there is no default route',
    'set `master` to a device of this host'
  ],
  MTU_INVALID: ['an MTU is larger than that of the underlying device', 'lower `mtu`, or omit it'],
  PAGE_PORT_UNUSABLE: [
    'weftctl page cannot listen on the port of --port',
    'select another port, or leave --port out for a free one'
  ],
  PORT_TAKEN: [
    'another pod of this node has the host port, or weftd itself: the port of the backend or of /healthz',
    'delete that pod, or use another hostPort or hostIP'
  ],
  PREVIOUS_MISSING: [
    'a chained plugin was called without the result of the previous one',
    'chain it behind the plugin that makes the interface, in `plugins` of a .conflist'
  ],
  PROTOCOL: [
    'weftd received a line that it cannot parse',
    'use executables, weftctl and weftd of compatible releases (versioning.md)'
  ],
  RANGE_INVALID: ['the ranges of `ipam` contradict each other', 'correct `ipam.ranges` in the CNI configuration'],
  RESOLV_CONF_UNREADABLE: [
    'the file in `ipam.resolvConf` cannot be read (11 where that may pass, as of a file system that does not answer)',
    'correct the path, or omit the key'
  ],
  SANDBOX_GONE: [
    'the network namespace of the container cannot be opened',
    'usually none: the container is gone; if weftd runs in a container, mount the directory with HostToContainer propagation'
  ],
  NAMESPACE_OTHER: [
    'the plugin was called in another network namespace than that of weftd, as by a rootless engine; DEL succeeds and removes nothing',
    'run weftd and the container runtime in the same network namespace'
  ],
  SANDBOX_INVALID: [
    "the runtime passed something that is not a network namespace, or the host's own",
    'do not call a network plugin for pods with hostNetwork'
  ],
  SOCKET_UNUSABLE: [
    'weftd cannot listen on its socket',
    'make the directory writable for root, and remove any other file of this name'
  ],
  STOPPING: [
    'weftd is shutting down, and serves neither calls nor questions of weftctl',
    'the runtime retries; if weftd stays away, check why it was stopped'
  ],
  WANTED_OTHERWISE: [
    'two configurations want one object of this host with different values, such as limits or a route',
    'make the two agree, or let only one of them set it'
  ],
  SUBNET_ENV_INVALID: ['a line of subnet.env is invalid', 'correct or delete the file: weftd writes it again'],
  SUBNET_FILE_UNREADABLE: [
    'the `flannel` plugin finds no subnet.env (7 where the path names something else than a readable small file)',
    'wait until this node has a subnet (`weftctl status`), or correct `subnetFile`'
  ],
  SYSCTL_NOT_ALLOWED: [
    "`tuning` is to set a sysctl that this node's allowlist does not allow, or the list cannot be read",
    'remove the sysctl, or add it to the allowlist'
  ],
  ADDRESS_INVALID: ['what follows `address` is no address', 'write it as 10.244.2.7 or fd00:2::7'],
  POD_UNKNOWN: [
    'an end of the path is named as a pod, but this node has no such pod',
    'ask on its node, or through kubectl: `kubectl weft why pod …`; for the other end use its address'
  ],
  UNKNOWN_QUESTION: [
    'weftctl asked something that this weftd does not know',
    'use weftctl and weftd of the same release'
  ],
  WIREGUARD_ANSWER: [
    'the answer of wireguard-go about its device cannot be used',
    'compare with `wg show`, and update wireguard-go'
  ],
  WIREGUARD_GO: [
    'wireguard-go (--wireguard-go) did not make a device',
    'check that the file can be executed and that /dev/net/tun exists'
  ]
}

/** Numbers of the specification. */
const NUMBERS: Readonly<Record<keyof typeof cniCode, string>> = {
  incompatibleVersion: 'the version of the configuration does not support the request',
  unsupportedField: 'a key requests something that Weft does not support',
  unknownContainer: 'CHECK: the container is unknown',
  environment: 'a variable that the runtime must set (CNI_…) is missing or wrong',
  inputOutput: 'standard input could not be read',
  decoding: 'input cannot be parsed: standard input, a version, a message on the socket',
  configuration: 'a value in the network configuration is invalid; the message has path, value and rule',
  namespace: 'the network namespace does not exist, or is not one',
  tryAgain: 'a condition blocks pods for now, or weftd does not answer: the runtime retries',
  notAvailable: 'STATUS only: an ADD would fail now',
  limitedConnectivity: 'STATUS only: an ADD would fail now, and running pods may be cut off from other nodes',
  internal: 'anything else: a bug to report, or an error of a third-party plugin'
}

const numberOf = (name: string, verb: 'ADD' | 'STATUS'): number => cniError(new WeftError(name, '', ''), verb).code

/** A condition that blocks nothing may still be the error of a single call. */
function numbersOf(name: string, blocksAdd: boolean): string {
  const number = numberOf(name, 'ADD')
  if (blocksAdd) return `${number}, ${numberOf(name, 'STATUS')}`
  return number >= 100 && number !== cniCode.internal ? String(number) : ''
}

export const blocks = {
  conditions: () =>
    table([
      ['code', 'severity', 'blocks', 'ADD, STATUS', 'meaning', 'cure'],
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
      ['code', 'CNI', 'meaning', 'cure'],
      ...Object.entries(ERRORS).map(([name, [means, cure]]) => {
        const number = numberOf(name, 'ADD')
        return [code(name), number === cniCode.internal ? '' : String(number), means, cure]
      })
    ]),
  cni: () =>
    table([
      ['number', 'meaning'],
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
