// The table of conditions: every reason for which Weft can't do its job, with the words and the cure that all users meet everywhere.

export type Severity = 'error' | 'warning'
/** `add`: no pod can be set up. `ready`: /readyz says no. A condition that blocks nothing is only told. */
export type Blocks = 'add' | 'ready'

export type ConditionRow = {
  readonly severity: Severity
  readonly blocks: readonly Blocks[]
  readonly title: string
  /** What an administrator does about it. */
  readonly cure: string
}

export const CONDITIONS = {
  STARTING: {
    severity: 'warning',
    blocks: ['add', 'ready'],
    title: 'weftd is starting',
    cure: 'wait; if it stays so, the weftd log of this node says what it waits for'
  },
  STORE_UNREACHABLE: {
    severity: 'warning',
    blocks: [],
    title: 'the lease store does not answer; existing routes and pods stay as they are',
    cure: 'check that the store runs and that this node reaches it (--etcd-endpoints, --kube-api-url, certificates)'
  },
  STORE_DENIED: {
    severity: 'error',
    blocks: [],
    title: 'the lease store refuses our credentials',
    cure: 'etcd: check --etcd-username, --etcd-password, --etcd-certfile and --etcd-keyfile, and the role they have under --etcd-prefix; Kubernetes: what the message says'
  },
  CONFIG_MISSING: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'there is no network configuration in the store',
    cure: 'write one where the message says that there is none'
  },
  CONFIG_INVALID: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'the network configuration is not valid',
    cure: 'correct the value that the message names'
  },
  CONFIG_KEY_UNKNOWN: {
    severity: 'warning',
    blocks: [],
    title: 'the network configuration has keys that nobody reads',
    cure: 'correct the name of the key, or take it out'
  },
  VARIABLE_UNKNOWN: {
    severity: 'warning',
    blocks: [],
    title: 'the environment has variables of weftd that nobody reads',
    cure: 'correct the name of the variable, or take it out, and restart weftd (weftd --help lists the flags)'
  },
  CONFIG_CHANGED: {
    severity: 'warning',
    blocks: [],
    title: 'the network configuration in the store is no longer the one that this node uses',
    cure: 'restart weftd, node by node, to take the new one over (pods keep their addresses until they are made again), or write the old one back'
  },
  NO_INTERFACE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'no interface to the other nodes was found',
    cure: 'name one with --iface, --iface-regex or --iface-can-reach; the message lists the candidates and why each lost'
  },
  LINK_DOWN: {
    severity: 'error',
    blocks: [],
    title: 'the interface to the other nodes does not work; pods of this node still reach each other',
    cure: 'see to what the message names: the cable, the switch, or the program that took the link or its address away; routes and pods stay as they are'
  },
  NETWORK_OVERLAPS: {
    severity: 'warning',
    blocks: [],
    title: 'the pod network overlaps a network that this host is connected to',
    cure: 'choose another Network in the configuration, or another prefix for the interface: what has an address in both can not be reached by all'
  },
  BRIDGE_FOREIGN: {
    severity: 'warning',
    blocks: [],
    title: 'the bridge of pods has an address of an earlier subnet, so bridge mode refuses new pods',
    cure: 'once no pod has an address of that subnet, take it away: ip address del <address> dev cni0 (or ip link del cni0)'
  },
  NO_LEASE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this node holds no subnet',
    cure: 'see the cause in the message; until the store answers, no new subnet can be leased'
  },
  NODE_UNKNOWN: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'the Kubernetes API knows no node of this name',
    cure: 'start the kubelet of this node, or give weftd the name under which it registers (NODE_NAME from spec.nodeName, or --node-name)'
  },
  POD_CIDR_MISSING: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this node has no podCIDR',
    cure: 'let the controller manager hand them out: --allocate-node-cidrs=true and --cluster-cidr=<Network> (with kubeadm: init --pod-network-cidr=<Network>)'
  },
  POD_CIDR_OUTSIDE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: "this node's podCIDR does not belong to the network",
    cure: 'make Network in net-conf.json the cluster CIDR of the controller manager (--cluster-cidr) and restart weftd, or register the node anew'
  },
  POD_CIDRS_EXHAUSTED: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this node has no podCIDR because the subnets of the cluster CIDR are used up',
    cure: 'delete nodes that are gone, or widen --cluster-cidr of the controller manager and Network in net-conf.json, or lengthen --node-cidr-mask-size for new clusters'
  },
  NODE_ANNOTATION_INVALID: {
    severity: 'warning',
    blocks: [],
    title: 'an annotation of this node can not be used; what was detected is published instead',
    cure: 'correct or remove the annotation that the message names (kubectl annotate node)'
  },
  SUBNETS_EXHAUSTED: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'every subnet of the network is leased',
    cure: 'remove leases of nodes that are gone, or widen Network or SubnetMin…SubnetMax, or lengthen SubnetLen'
  },
  LEASE_LOST: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'another node holds the subnet that was ours',
    cure: 'drain this node and restart weftd so that it takes a new subnet; look for two nodes with one public IP'
  },
  LIST_DOUBTED: {
    severity: 'warning',
    blocks: [],
    title: 'the store suddenly lists no other node; their routes are kept until that is confirmed',
    cure: 'if the store lost its data, restore it or wait until the other nodes have written their leases again'
  },
  LEASE_MALFORMED: {
    severity: 'warning',
    blocks: [],
    title: 'a lease in the store can not be understood and is skipped',
    cure: 'correct or delete the key or annotation that the message names'
  },
  VTEP_MAC_CONFLICT: {
    severity: 'error',
    blocks: [],
    title: 'two nodes publish one VTEP MAC address, so what goes through the tunnel reaches only one of them',
    cure: 'on one of the two, which are often clones of one machine, see that /etc/machine-id and the name are its own, and let it publish a new address: with Kubernetes delete its Node object and restart its kubelet once its pods are gone; with etcd stop weftd, delete its lease, start weftd'
  },
  PUBLIC_IP_CONFLICT: {
    severity: 'error',
    blocks: [],
    title: 'two nodes publish one public address, so only one of them is reached',
    cure: 'delete the Node object to which no machine belongs (kubectl delete node <name>), or give each machine an address of its own (--public-ip, --iface or the annotation public-ip-overwrite, where weftd publishes the wrong one)'
  },
  UNDERLAY_MTU: {
    severity: 'warning',
    blocks: [],
    title: 'the way to another node carries only smaller packets than pods send, so large ones are lost or split',
    cure: 'mend the MTU on the way, or set MTU in Backend of the network configuration to what it carries and restart weftd on every node; the condition ends within a quarter of an hour'
  },
  KERNEL_FEATURE: {
    severity: 'error',
    blocks: ['add', 'ready'],
    title: 'this kernel lacks something that the configuration needs',
    cure: 'load or install the module that the message names, or choose another backend'
  },
  KERNEL_REFUSED: {
    severity: 'error',
    blocks: [],
    title: 'the kernel refused a change',
    cure: 'see what the kernel says in the message, and its log (dmesg); weftd tries again with growing pauses'
  },
  UNDONE_REPEATEDLY: {
    severity: 'warning',
    blocks: [],
    title: 'another program keeps undoing what weftd sets up',
    cure: 'configure the program that the message names to leave weft.*, flannel.*, cni0 and veth* alone'
  },
  FORWARD_DROPPED: {
    severity: 'warning',
    blocks: [],
    title: 'another program drops forwarded packets; weftd keeps an accept for pods in its chain',
    cure: 'nothing, if pods reach each other; otherwise allow the pod network in the program that the message names'
  },
  SUBNET_FILE_UNWRITABLE: {
    severity: 'warning',
    blocks: [],
    title: 'subnet.env can not be written, so Docker and others go by an old one or none; pods are served',
    cure: 'free space, make its directory writable, or choose another --subnet-file; weftd tries again by itself'
  },
  STATE_UNWRITABLE: {
    severity: 'error',
    blocks: ['add'],
    title: 'a state directory can not be written',
    cure: 'free space or make the path in the message writable'
  },
  CNI_CONF_INVALID: {
    severity: 'error',
    blocks: ['ready'],
    title: 'the CNI configuration list for this node is not valid, and an earlier one stays',
    cure: 'correct the file that the message names (in a cluster: in the ConfigMap)'
  },
  CNI_CONF_UNWRITABLE: {
    severity: 'error',
    blocks: ['ready'],
    title: 'the CNI configuration list can not be written, so the runtime does not hand us its pods',
    cure: 'make the directory in the message writable for weftd, or name the one that the runtime reads with --cni-conf-dir'
  },
  CNI_CONF_SHADOWED: {
    severity: 'warning',
    blocks: [],
    title:
      'another CNI configuration sorts before ours, so the runtime takes that one and new pods do not come to Weft',
    cure: 'remove the files that the message names from this node, or rename them so that they sort after 10-weft.conflist'
  },
  POOL_EXHAUSTED: {
    severity: 'error',
    blocks: ['add'],
    title: 'every pod address of this node is taken',
    cure: 'delete pods, or give nodes larger subnets (SubnetLen, or --node-cidr-mask-size with Kubernetes)'
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

/** One sentence with cause, evidence and cure: the same in the CNI error, /readyz, the log, events and doctor. */
export const sentence = (condition: Pick<Condition, 'title' | 'detail' | 'cure'>): string =>
  withCure(`${condition.title}: ${condition.detail}`, condition.cure)

/** What others say may end with a full stop of its own. */
export const withCure = (text: string, cure: string): string => `${text.replace(/[.\s]+$/, '')}. Cure: ${cure}`
