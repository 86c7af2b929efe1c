// The capability `portMappings` (CNI conventions, "Well-known Capabilities"): ports of the host that lead to ports of
// the container.
import { formatIp } from '../../ipam/address.ts'
import type { HostPort } from '../attachment.ts'
import { entries, type Field, FieldError, isAbsent, member, oneOf, required, text, wholeNumber } from '../cni/field.ts'
import { ip } from './readers.ts'

const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const

/** Entries without a host port are skipped: runtimes list every port that a container declares. Errors: FieldError. */
export function portMappings(list: Field): readonly HostPort[] {
  const mapped = entries(list).filter((entry) => !isAbsent(member(entry, 'hostPort')))
  const found = new Map<string, HostPort>()
  for (const entry of mapped) {
    const mapping = portMapping(entry)
    const key = `${mapping.hostIp === undefined ? '' : formatIp(mapping.hostIp)} ${mapping.protocol} ${mapping.hostPort}`
    const before = found.get(key)
    if (before !== undefined && before.containerPort !== mapping.containerPort) {
      throw new FieldError(
        member(entry, 'hostPort'),
        `must lead to one port: an earlier entry leads ${mapping.protocol} ${mapping.hostPort} to ${before.containerPort}`
      )
    }
    found.set(key, mapping)
  }
  return [...found.values()]
}

function portMapping(entry: Field): HostPort {
  const protocol = member(entry, 'protocol')
  const lower = { ...protocol, value: text(protocol)?.toLowerCase() }
  const hostIp = ip(member(entry, 'hostIP'))
  return {
    protocol: required(known(protocol, lower), protocol, `one of ${PROTOCOLS.join(', ')}`),
    hostPort: port(member(entry, 'hostPort')),
    containerPort: port(member(entry, 'containerPort')),
    ...(hostIp === undefined ? {} : { hostIp })
  }
}

/** Names in any letter case, as Docker's tools write them; the error shows the original. */
function known(written: Field, lower: Field): HostPort['protocol'] | undefined {
  try {
    return oneOf(lower, PROTOCOLS)
  } catch (error) {
    if (error instanceof FieldError) throw new FieldError(written, error.rule)
    throw error
  }
}

const port = (field: Field): number => required(wholeNumber(field, 1, 65_535), field, 'a port from 1 to 65535')
