// The public half of an X25519 key (RFC 7748), which WireGuard's keys are.
import { createPrivateKey, createPublicKey } from 'node:crypto'

/** An X25519 private key of 32 octets in PKCS #8 (RFC 8410), but for those. */
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')

/** The public key of an X25519 private key, both in base64. */
export function publicKeyOf(privateKey: string): string {
  const key = Buffer.concat([PKCS8, Buffer.from(privateKey, 'base64')])
  const exported = createPublicKey(createPrivateKey({ key, format: 'der', type: 'pkcs8' })).export({ format: 'jwk' })
  return Buffer.from(exported.x ?? '', 'base64url').toString('base64')
}
