// Numbers of nf_tables' netlink messages (<linux/netfilter/nf_tables.h>) that are read or written here.

export const NFT_MSG = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  getChain: 4,
  deleteChain: 5,
  newRule: 6,
  getRule: 7,
  deleteRule: 8,
  newElement: 12,
  getElement: 13,
  deleteElement: 14,
  newGeneration: 15
} as const

/** Attribute 1 is the table's name in the messages of tables, chains, rules, sets and elements alike. */
export const NFTA_TABLE_NAME = 1
export const NFTA_CHAIN = { name: 3, hook: 4, policy: 5, uses: 6, type: 7 } as const
export const NFTA_HOOK = { number: 1, priority: 2 } as const
/** NF_INET_FORWARD, <linux/netfilter.h>. */
export const HOOK_FORWARD = 2
export const NF_DROP = 0

export const NFTA_RULE = { chain: 2, handle: 3, expressions: 4, position: 6, userdata: 7 } as const
export const NFTA_LIST_ELEM = 1
export const NFTA_EXPR = { name: 1, data: 2 } as const
/** libnftnl's type of user data for the comment of a rule. */
export const NFTNL_UDATA_RULE_COMMENT = 0

export const NFTA_IMMEDIATE = { register: 1, data: 2 } as const
export const NFTA_DATA = { value: 1, verdict: 2 } as const
export const NFTA_VERDICT = { code: 1, chain: 2 } as const
/** NF_* are the verdicts of netfilter, NFT_* those of nf_tables. */
export const VERDICT = { drop: 0, accept: 1, queue: 3, jump: -3, goto: -4, return: -5 } as const

export const NFTA_PAYLOAD = { to: 1, base: 2, offset: 3, length: 4 } as const
export const NFT_PAYLOAD = { link: 0, network: 1 } as const
/** Of meta and ct alike. */
export const NFTA_META = { to: 1, key: 2 } as const
export const NFTA_CMP = { from: 1, operator: 2, data: 3 } as const
export const NFTA_BITWISE = { from: 1, to: 2, length: 3, mask: 4, xor: 5 } as const
export const NFTA_RANGE = { from: 1, operator: 2, first: 3, last: 4 } as const
export const NFTA_QUEUE = { number: 1, total: 2, flags: 3 } as const
export const NFTA_COUNTER = { bytes: 1, packets: 2 } as const
export const NFTA_LOOKUP = { set: 1, from: 2, to: 3, flags: 5 } as const
export const NFT_LOOKUP_F_INV = 1
/** NFTA_OBJREF_IMM_TYPE. */
export const NFTA_OBJREF_TYPE = 1
/** Of matches and targets of iptables. */
export const NFTA_EXTENSION = { name: 1, info: 3 } as const

export const NFTA_SET_ELEM_LIST = { table: 1, set: 2, elements: 3 } as const
export const NFTA_SET_ELEM = { key: 1, data: 2, flags: 3, userdata: 6, keyEnd: 10 } as const
export const NFT_SET_ELEM = { intervalEnd: 1, catchall: 2 } as const

/** Registers that a register number stands for, in steps of four octets: NFT_REG_1 has sixteen, NFT_REG32_00 four. */
export const slotOf = (register: number): number => (register < 8 ? (register - 1) * 4 : register - 8)
/** NFT_REG_VERDICT. */
export const REGISTER_VERDICT = 0
/** NFT_REG_1. */
export const REGISTER_1 = 1
