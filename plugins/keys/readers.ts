// Readers that plugins share: addresses, MACs and the pod's name, members of every attachment, and FieldErrors as
// CniErrors.
import { type Ip, type Prefix, parseIp, parsePrefix } from '../../ipam/address.ts'
import type { Attachment, Pod } from '../attachment.ts'
import { type Args, LONGEST_NAME, parseArgs } from '../cni/args.ts'
import { CniError, cniCode } from '../cni/error.ts'
import { type Field, FieldError, shown, text } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'

/** CNI_ARGS that name the pod; Kubernetes runtimes set them. */
export const podArgs = ['K8S_POD_NAMESPACE', 'K8S_POD_NAME', 'K8S_POD_INFRA_CONTAINER_ID', 'K8S_POD_UID'] as const

export function podOf(args: Args): Pod | undefined {
  const [namespace, name, uid] = (['K8S_POD_NAMESPACE', 'K8S_POD_NAME', 'K8S_POD_UID'] as const).map((key) =>
    args.get(key)?.slice(0, LONGEST_NAME)
  )
  if (!name) return undefined
  // podman passes a name without a namespace.
  return uid ? { namespace: namespace ?? '', name, uid } : { namespace: namespace ?? '', name }
}

/** For plugins that read only the pod's name from CNI_ARGS: malformed ones must not make them fail. */
export function podIfReadable(written: string): Pod | undefined {
  try {
    return podOf(parseArgs(`IgnoreUnknown=1;${written}`, podArgs))
  } catch (error) {
    if (error instanceof CniError) return undefined
    throw error
  }
}

/** The members that do not depend on the plugin. */
export function identity(call: AttachmentCall, pod: Pod | undefined) {
  const who = pod === undefined ? 'container' : `pod ${pod.namespace === '' ? '' : `${pod.namespace}/`}${pod.name}`
  const short = call.containerId.slice(0, 12)
  return {
    network: call.network,
    containerId: call.containerId,
    ifname: call.ifname,
    plugin: call.plugin,
    because:
      pod === undefined
        ? `${who} ${short}, ${call.ifname} in network ${call.network}`
        : `${who}, ${call.ifname} in network ${call.network} (container ${short})`,
    ...(call.netns === undefined ? {} : { sandbox: call.netns }),
    ...(call.mayBeOwnNamespace ? { mayBeOwnNamespace: true as const } : {}),
    ...(pod === undefined ? {} : { pod })
  } satisfies Partial<Attachment>
}

/** Runs `read`; an error of a field becomes code 7 with its path, value and rule. */
export function configured<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof FieldError)) throw cause
    throw new CniError(`bad value in the network configuration at ${cause.path}: ${shown(cause.value)}`, {
      code: cniCode.configuration,
      details: cause.rule,
      cause
    })
  }
}

/** A key that requests something unsupported is an error (code 2) that names it. */
export const unsupported = (field: Field, cure: string): CniError =>
  new CniError(`not supported in the network configuration: ${field.path}: ${shown(field.value)}`, {
    code: cniCode.unsupportedField,
    details: cure
  })

/** DEL is served even if the configuration has become invalid since the ADD. */
export function evenIfUnreadable(
  call: AttachmentCall,
  strictly: () => Attachment,
  otherwise: () => Attachment
): Attachment {
  try {
    return strictly()
  } catch (error) {
    if (call.verb === 'DEL' && error instanceof CniError) return otherwise()
    throw error
  }
}

/** An invalid value in CNI_ARGS is an error of the environment (code 4), not of the configuration. */
export function inArgs<T>(key: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (!(cause instanceof FieldError)) throw cause
    throw new CniError(`CNI_ARGS: ${key}=${String(cause.value)} is not valid`, {
      code: cniCode.environment,
      details: cause.rule,
      cause
    })
  }
}

export function ip(field: Field): Ip | undefined {
  const written = text(field)
  if (written === undefined || written === '') return undefined
  const parsed = parseIp(written)
  if (parsed === undefined) throw new FieldError(field, 'must be an IPv4 or IPv6 address')
  return parsed
}

/** An address with or without a prefix length, as in `ips`; the length is ignored. */
export function requestedIp(field: Field): Ip {
  const written = text(field) ?? ''
  const parsed = parseIp(written) ?? parsePrefix(written)?.ip
  if (parsed === undefined)
    throw new FieldError(field, 'must be an IPv4 or IPv6 address, with or without a prefix length')
  return parsed
}

export function prefix(field: Field): Prefix {
  const parsed = parsePrefix(text(field) ?? '')
  if (parsed === undefined) throw new FieldError(field, 'must be an address with prefix length, as 10.244.1.0/24')
  return parsed
}

/** A unicast MAC address in lower case with colons; runtimes send an empty string for none. */
export function mac(field: Field): string | undefined {
  const written = text(field)
  if (written === undefined || written === '') return undefined
  const found = written.toLowerCase().replaceAll('-', ':')
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(found))
    throw new FieldError(field, 'must be a MAC address, as 0a:58:0a:f4:01:05')
  if ((Number.parseInt(found.slice(0, 2), 16) & 1) === 1)
    throw new FieldError(field, 'must not be a multicast address (lowest bit of the first byte)')
  if (found === '00:00:00:00:00:00') throw new FieldError(field, 'must not be all zero')
  return found
}
