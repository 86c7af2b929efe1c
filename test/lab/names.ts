// Names of labs and the addresses inside them: a name carries its owner's process, so that what a dead owner left
// behind can be told from a running lab.
export interface LabOwner {
  readonly pid: number
  /**
   * The owner's start time in clock ticks since boot (proc(5), field 22 of stat): pids are used again, pairs are not.
   */
  readonly startTicks: number
}

/** `weft-<pid>-<start ticks>-<serial>`: short, since it is part of unix socket paths (108 bytes at most). */
export function labName(owner: LabOwner, serial: number): string {
  return `weft-${owner.pid}-${owner.startTicks}-${serial}`
}

/** The owner that a lab's name tells, or undefined when the text is no lab's name. */
export function labOwner(name: string): LabOwner | undefined {
  const match = /^weft-([1-9]\d*)-(\d+)-\d+$/.exec(name)
  return match ? { pid: Number(match[1]), startTicks: Number(match[2]) } : undefined
}

/**
 * Start time from the text of /proc/PID/stat. The second field, the command in brackets, may itself hold blanks and
 * brackets.
 */
export function startTicksOf(stat: string): number {
  const ticks = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  if (!Number.isInteger(ticks)) throw new Error(`no start time in the process state "${stat}"`)
  return ticks
}

/** State letter (proc(5): R, S, D, Z …) and parent from the text of /proc/PID/stat. */
export function stateAndParentOf(stat: string): { readonly state: string; readonly parent: number } {
  const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { state, parent: Number(parent) }
}

export interface SegmentAddresses {
  readonly v4: { readonly prefix: string; readonly length: number; readonly gateway: string }
  readonly v6: { readonly prefix: string; readonly length: number; readonly gateway: string }
}

/**
 * Underlay prefixes of segment 0, 1, …: 192.168.10.0/24 and fd00:10::/64, 192.168.11.0/24 and fd00:11::/64 … The router
 * is .1 and ::1.
 */
export function segmentAddresses(segment: number): SegmentAddresses {
  if (!Number.isInteger(segment) || segment < 0 || segment > 89) throw new Error(`segment ${segment} is not in 0…89`)
  const n = 10 + segment
  return {
    v4: { prefix: `192.168.${n}.`, length: 24, gateway: `192.168.${n}.1` },
    v6: { prefix: `fd00:${n}::`, length: 64, gateway: `fd00:${n}::1` }
  }
}

/** The addresses of the host with this index (0, 1, …, over all segments): .11, .12, … */
export function hostAddresses(segment: number, index: number): { readonly v4: string; readonly v6: string } {
  if (index > 240) throw new Error(`host ${index}: a segment of the lab has room for 241 hosts`)
  const { v4, v6 } = segmentAddresses(segment)
  return { v4: `${v4.prefix}${11 + index}`, v6: `${v6.prefix}${11 + index}` }
}
