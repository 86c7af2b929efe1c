// The table of conditions: every reason why Weft can't do its job, with the text and the cure that users see
// everywhere.

/** `notice`: nothing is wrong, but an administrator should know. */
export type Severity = 'error' | 'warning' | 'notice'
/** `add`: no pod can be set up. `ready`: /readyz says no. A condition that blocks nothing is only reported. */
export type Blocks = 'add' | 'ready'

export type ConditionRow = {
  readonly severity: Severity
  readonly blocks: readonly Blocks[]
  readonly title: string
  /**
   * What an administrator does about it: one action on a named object. Where only the detail knows the object, `raise`
   * is given a cure of its own.
   */
  readonly cure: string
}

export const CONDITIONS = {
  STARTING: {
    severity: 'warning',
    blocks: ['add', 'ready'],
    title: 'weftd is starting',
    cure: 'wait; if it lasts, check the weftd log on this node'
  },
  STORE_UNREACHABLE: {
    severity: 'warning',
    blocks: [],
    title: 'the lease store does not respond; existing routes and pods keep working',
    cure: 'check that the store is running and that this node can reach it (--etcd-endpoints, --kube-api-url, certificates)'
  },
  STORE_DENIED: {
    severity: 'error',
    blocks: [],
    title: 'the lease store denies access to weftd',
    cure: 'give weftd valid credentials with the rights it needs (etcd: --etcd-username, --etcd-password, --etcd-certfile, --etcd-keyfile and a role for --etcd-prefix; Kubernetes: deploy/20-rbac.yaml)'
  },
  STORE_FULL: {
    severity: 'error',
    blocks: [],
    title: 'etcd has used up its space and refuses writes, so leases cannot be taken or changed',
    cure: 'compact and defragment etcd (etcdctl compact REVISION; etcdctl defrag), or raise --quota-backend-bytes; then disarm the alarm: etcdctl alarm disarm'
  },
  CONFIG_MISSING: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'the store has no network configuration',
    cure: 'write the network configuration into the store: the one that the nodes used last, else they get other subnets'
  },
  CONFIG_INVALID: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'the network configuration is invalid',
    cure: 'correct the network configuration'
  },
  CONFIG_KEY_UNKNOWN: {
    severity: 'warning',
    blocks: [],
    title: 'the network configuration has unknown keys, which are ignored',
    cure: 'correct or remove these keys'
  },
  VARIABLE_UNKNOWN: {
    severity: 'warning',
    blocks: [],
    title: 'the environment has unknown WEFTD_ variables, which are ignored',
    cure: 'correct or remove these variables and restart weftd (weftd --help lists the flags)'
  },
  CONFIG_CHANGED: {
    severity: 'warning',
    blocks: [],
    title: 'the network configuration in the store has changed, and this node still uses the old one',
    cure: 'restore the old one, or drain each node and restart weftd there'
  },
  CONFIG_MIXED: {
    severity: 'warning',
    blocks: [],
    title: 'the network configuration has changed, and nodes still use the earlier one',
    cure: 'restart flanneld where it runs, and delete the leases of nodes that are gone; nodes of weftd change by themselves'
  },
  NO_INTERFACE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'no interface to the other nodes was found',
    cure: 'select one with --iface, --iface-regex or --iface-can-reach'
  },
  LINK_DOWN: {
    severity: 'error',
    blocks: [],
    title: 'the interface to the other nodes is not working; pods on this node still reach each other',
    cure: "bring the interface back up; Weft's routes and pods are kept, the host's own routes by it (default route) must be restored"
  },
  FORWARDING_OFF: {
    severity: 'error',
    blocks: [],
    title:
      'an interface of this host does not forward, so pods get no packets from other nodes or no replies through it',
    cure: 'set net.ipv4.conf.<interface>.forwarding to 1 (systemd-networkd: IPv4Forwarding=yes, before version 256 IPForward=ipv4)'
  },
  NETWORK_OVERLAPS: {
    severity: 'warning',
    blocks: [],
    title: 'the pod network overlaps a network of this host, so addresses in both may be unreachable',
    cure: "change Network, or renumber the host's interface"
  },
  BRIDGE_FOREIGN: {
    severity: 'error',
    blocks: ['ready'],
    title:
      "the pod bridge has an address of another network, or another link has this node's subnet, so bridge mode refuses new pods",
    cure: 'once nothing uses that network, remove the address from the bridge (ip address del), or name another bridge ("bridge":"weft0"); of two links with the subnet keep one'
  },
  FLANNELD_RUNNING: {
    severity: 'warning',
    blocks: [],
    title: 'flanneld runs on this node beside weftd, and each undoes what the other sets up',
    cure: 'stop flanneld, and keep it from starting again; the subnet and its pods stay'
  },
  NO_LEASE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this node has no subnet',
    cure: 'check the lease store: no subnet can be leased until it responds'
  },
  NODE_UNKNOWN: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'the Kubernetes API has no node of this name',
    cure: 'start the kubelet of this node, or set --node-name (or NODE_NAME, from spec.nodeName) to the name it registers'
  },
  POD_CIDR_MISSING: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this node has no podCIDR',
    cure: 'run the controller manager with --allocate-node-cidrs=true and --cluster-cidr=<Network> (kubeadm: init --pod-network-cidr=<Network>)'
  },
  POD_CIDR_OUTSIDE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: "this node's podCIDR is outside the pod network",
    cure: "set Network in net-conf.json to the controller manager's --cluster-cidr and restart weftd, or delete the Node object and let the kubelet register again"
  },
  POD_CIDRS_EXHAUSTED: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this node has no podCIDR because the cluster CIDR is exhausted',
    cure: "delete Node objects that have no machine, or widen both the controller manager's --cluster-cidr and Network in net-conf.json (in a new cluster, raise --node-cidr-mask-size)"
  },
  NODE_ANNOTATION_INVALID: {
    severity: 'warning',
    blocks: [],
    title: 'an annotation of this node is invalid; the detected address is published instead',
    cure: 'correct or remove the annotation (kubectl annotate node)'
  },
  SUBNETS_EXHAUSTED: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'all subnets of the network are leased',
    cure: 'delete leases of nodes that no longer exist, or widen Network or SubnetMin to SubnetMax, or increase SubnetLen'
  },
  LEASE_LOST: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: "another node now holds this node's subnet",
    cure: 'drain this node and restart weftd to lease a new subnet; if two nodes publish one public address, give each its own first (--iface, --public-ip)'
  },
  LIST_DOUBTED: {
    severity: 'warning',
    blocks: [],
    title: 'the store no longer lists most or all other nodes; in case its data was lost, existing routes are kept',
    cure: 'restore the store if it lost its data; otherwise wait: the routes are removed when the time is up'
  },
  LEASE_MALFORMED: {
    severity: 'warning',
    blocks: [],
    title: 'a lease in the store cannot be used and is skipped',
    cure: 'correct the lease, or delete it if its node is gone: a node that runs takes it again'
  },
  SUBNET_CONFLICT: {
    severity: 'error',
    blocks: [],
    title:
      'two nodes hold subnets that share addresses; the older lease is used, and pods of the other are unreachable',
    cure: 'give the node of the younger lease another subnet (docs/troubleshooting.md, "Two nodes publish the same")'
  },
  PEER_OFF_LINK: {
    severity: 'error',
    blocks: [],
    title:
      "this backend can't reach a node that is not on this node's link; pods on the two nodes don't reach each other",
    cure: 'set Backend.Type to vxlan, or put all nodes on one link'
  },
  ROUTE_SHADOWED: {
    severity: 'error',
    blocks: [],
    title: "the kernel does not use weftd's route for packets to pods",
    cure: 'remove the route or rule that takes the packets, or add a rule before it that sends the pod network to the main table'
  },
  VTEP_MAC_CONFLICT: {
    severity: 'error',
    blocks: [],
    title: 'two nodes publish the same VTEP MAC address, so tunnel traffic reaches only the one with the older lease',
    cure: 'give one of the two its own /etc/machine-id and a new lease (docs/troubleshooting.md, "Two nodes publish the same")'
  },
  WIREGUARD_KEY_CONFLICT: {
    severity: 'error',
    blocks: [],
    title: 'two nodes publish the same WireGuard key, so encrypted traffic reaches only the one with the older lease',
    cure: 'on one of the two, which are often clones of one machine, delete /var/lib/weft/wgkey and restart weftd'
  },
  WIREGUARD_SILENT: {
    severity: 'error',
    blocks: [],
    title: 'a node does not answer by WireGuard, so pods on it and on this node do not reach each other',
    cure: 'let this UDP port pass between the two nodes, in both directions (their firewalls and those between them, security groups)'
  },
  PUBLIC_IP_CONFLICT: {
    severity: 'error',
    blocks: [],
    title:
      'two nodes publish the same public address: other nodes use both leases, which lead to whichever has the address, and the two do not reach each other',
    cure: 'give each node an address of its own, or delete the lease (Kubernetes: the Node object) that has no machine'
  },
  UNDERLAY_LOST: {
    severity: 'error',
    blocks: [],
    title: 'packets between pods of this node and of another node are lost between the nodes',
    cure: 'let the port of the tunnel pass between the nodes, in both directions (firewalls of the nodes and between them, security groups); weftctl peers lists the nodes concerned'
  },
  UNDERLAY_MTU: {
    severity: 'warning',
    blocks: [],
    title: 'the path MTU to a node is too small for packets of pods, so large ones are lost or fragmented',
    cure: 'fix the MTU on the path, or lower MTU in Backend and recreate the pods, which keep theirs; the condition ends within 15 minutes'
  },
  UNDERLAY_CHECKSUM: {
    severity: 'warning',
    blocks: [],
    title: 'checksum offload breaks UDP and TCP packets to another node',
    cure: 'turn transmit checksum offload off on the interface between the nodes as well (ethtool -K INTERFACE tx off), or update its driver and the kernel; then restart weftd'
  },
  NEIGHBOUR_TABLE_FULL: {
    severity: 'error',
    blocks: [],
    title: "the kernel's table of neighbours is full, so that packets to other nodes and to pods are lost",
    cure: 'raise net/ipv4/neigh/default/gc_thresh2 and gc_thresh3 (sysctl -w) to more than twice the number of nodes and pods on the links of this host'
  },
  KERNEL_FEATURE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'the kernel lacks a feature that the configuration needs',
    cure: 'load or install the kernel module, or choose another backend'
  },
  UDP_PROXY: {
    severity: 'notice',
    blocks: [],
    title:
      'this kernel has no FOU, so that packets of pods to other nodes are carried by a process, weftd udp-proxy, which goes on while weftd is stopped or restarted',
    cure: 'no action needed; with a kernel that has FOU (modules fou and ipip), or with another backend, no process is needed'
  },
  UDP_PROXY_AWAY: {
    severity: 'error',
    blocks: [],
    title: 'weftd udp-proxy, which carries the packets of pods to other nodes, does not do so',
    cure: 'check the log of weftd udp-proxy on this node; if nothing starts it, start it, or run weftd with --udp-proxy=start'
  },
  KERNEL_REFUSED: {
    severity: 'error',
    blocks: [],
    title: 'the kernel rejected a change',
    cure: 'check the kernel log (dmesg); weftd retries with increasing delays'
  },
  COMMAND_FAILED: {
    severity: 'error',
    blocks: [],
    title: 'a command of the network configuration fails on this node; weftd retries with increasing delays',
    cure: 'correct the command in the network configuration, or what it needs on this host'
  },
  UNDONE_REPEATEDLY: {
    severity: 'warning',
    blocks: [],
    title: "another program keeps undoing weftd's changes",
    cure: "configure that program to leave Weft's links, routes and firewall tables alone"
  },
  FORWARD_DROPPED: {
    severity: 'warning',
    blocks: [],
    title: "another program's rule drops packets of pods, and weftd does not overrule it",
    cure: 'if pods are to reach each other, accept the pod network before that rule'
  },
  FIREWALL_TOO_LONG: {
    severity: 'warning',
    blocks: [],
    title: "another program's chain has so many rules that weftd takes some for drops that may concern pods",
    cure: 'no action needed if pods reach each other; otherwise move long lists of addresses into sets (nft, ipset)'
  },
  SUBNET_FILE_UNWRITABLE: {
    severity: 'warning',
    blocks: [],
    title: 'subnet.env cannot be written, so Docker and others use an old one or none; pods are served',
    cure: 'free space or make its directory writable, or choose another --subnet-file; weftd retries'
  },
  STATE_UNWRITABLE: {
    severity: 'error',
    blocks: ['add'],
    title: 'a state directory cannot be written',
    cure: 'free space or make the directory writable'
  },
  CNI_CONF_INVALID: {
    severity: 'error',
    blocks: ['ready'],
    title: 'the CNI configuration list for this node is invalid; the previous one stays in place',
    cure: 'correct the file given with --cni-conf-source'
  },
  CNI_CONF_UNWRITABLE: {
    severity: 'error',
    blocks: ['ready'],
    title: 'the CNI configuration list cannot be written, so the runtime does not send pods to Weft',
    cure: 'make the directory writable for weftd, or set --cni-conf-dir to the one that the runtime reads'
  },
  CNI_CONF_SHADOWED: {
    severity: 'warning',
    blocks: [],
    title: 'another CNI configuration sorts before 10-weft.conflist, so the runtime uses it and new pods bypass Weft',
    cure: 'remove that file, or rename it so that it sorts after 10-weft.conflist'
  },
  CNI_CONF_CONTESTED: {
    severity: 'warning',
    blocks: [],
    title: 'another program keeps replacing or deleting 10-weft.conflist; weftd restores it with increasing delays',
    cure: 'make that program leave the file alone, or add its plugin behind "weft" in the list, where it stays'
  },
  POOL_EXHAUSTED: {
    severity: 'error',
    blocks: ['add'],
    title: 'all pod addresses of this node are in use',
    cure: 'delete pods, or give nodes larger subnets (SubnetLen; with Kubernetes, --node-cidr-mask-size)'
  }
} satisfies Record<string, ConditionRow>

export type ConditionCode = keyof typeof CONDITIONS
export type Condition = ConditionRow & {
  readonly code: ConditionCode
  /** What exactly: the value, the place, the cause. */
  readonly detail: string
  /** When it began, milliseconds since 1970. */
  readonly since: number
}

/** One sentence with cause, evidence and cure: the same in the CNI error, /readyz, the log, events and `weftctl`. */
export const sentence = (condition: Pick<Condition, 'title' | 'detail' | 'cure'>): string =>
  withCure(`${condition.title}: ${condition.detail}`, condition.cure)

/** A quoted message may end with a full stop of its own. */
export const withCure = (text: string, cure: string): string => `${text.replace(/[.\s]+$/, '')}. Cure: ${cure}`
