// Whether nftables can masquerade on this kernel, found by trying in an empty network namespace: nf_tables may come
// without the modules for NAT.
import type { NftSession } from './session.ts'

/** What is missing: `masquerade`, or chains of type nat at all, without which iptables-nft can't do it either. */
export type MissingNat = { readonly what: 'masquerade' | 'nat'; readonly why: string }

const CHAIN = 'type nat hook postrouting priority srcnat;'

/** `open`: a session in an empty network namespace. `undefined`: all is there. */
export async function missingNat(open: () => NftSession): Promise<MissingNat | undefined> {
  using session = open()
  return await session.exclusive(async (run) => {
    // As Weft's own chain and rules.
    const rule = 'add rule inet try c ip saddr 192.0.2.0/24 masquerade fully-random'
    const whole = await run(`add table inet try; add chain inet try c { ${CHAIN} }; ${rule}`)
    if (whole.done) return undefined
    const why = whole.complaints.map(({ words }) => words).join('; ')
    const chain = await run(`add table ip try; add chain ip try c { ${CHAIN} }`)
    return { what: chain.done ? 'masquerade' : 'nat', why }
  })
}
