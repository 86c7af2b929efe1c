// Certificates that are not valid any more, or not yet: grpc only says that there is no connection.
import { X509Certificate } from 'node:crypto'

export type CertificateFault = { readonly what: string; readonly cure: string }

/** When a certificate is valid, in milliseconds since 1970, and the file that it is from. */
type Validity = { readonly from: number; readonly to: number; readonly path: string }

/** `undefined` without a certificate, and for one that can't be read. */
export function validityOf(pem: Buffer | null, path: string | undefined): Validity | undefined {
  if (pem === null || path === undefined) return undefined
  try {
    const { validFromDate, validToDate } = new X509Certificate(pem)
    return { from: validFromDate.getTime(), to: validToDate.getTime(), path }
  } catch {
    return undefined
  }
}

/**
 * What the message of a failed connection has to do with a certificate's dates. etcd only says that ours is bad, so its
 * dates are looked at here; `now` in milliseconds since 1970.
 */
export function certificateFault(
  message: string,
  own: Validity | undefined,
  now: number
): CertificateFault | undefined {
  // Other faults have nothing to do with it, even if it is too old.
  if (!/certificate|SSL|TLS/i.test(message)) return undefined
  if (own !== undefined && now > own.to)
    return {
      what: `the client certificate ${own.path} expired on ${dateOf(own.to)}`,
      cure: `renew the client certificate ${own.path} and its key (--etcd-keyfile); weftd reads both again by itself`
    }
  if (own !== undefined && now < own.from)
    return {
      what: `the client certificate ${own.path} is valid from ${dateOf(own.from)} on`,
      cure: 'correct the clock of this node'
    }
  if (/certificate has expired/.test(message))
    return {
      what: "etcd's certificate, or that of its authority, has expired",
      cure: "renew etcd's certificate (its --cert-file) or that of its authority (--etcd-cafile), or correct the clock of this node"
    }
  if (/certificate is not yet valid/.test(message))
    return { what: "etcd's certificate is not valid yet", cure: 'correct the clock of this node, or that of etcd' }
  return undefined
}

const dateOf = (time: number): string => new Date(time).toISOString().slice(0, 16).replace('T', ' ')
