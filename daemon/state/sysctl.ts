// The device of a sysctl: net/ipv4/conf/eth0/forwarding belongs to eth0, appears with it and goes with it.

/** `all` and `default` stand in the device's place for settings of the whole namespace. */
const OF_A_DEVICE = /^net\/(?:ipv4|ipv6)\/(?:conf|neigh)\/(?!all\/|default\/)([^/]+)\/[^/]+$/

/** `undefined` for a setting of the whole namespace or host. */
export const deviceOfSysctl = (path: string): string | undefined => OF_A_DEVICE.exec(path)?.[1]
