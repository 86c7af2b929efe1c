// What nftables has on a host, without the chain of the daily question, which weftd adds at a moment of its own: once the
// kernel tracks connections.
import type { Host } from './host.ts'

const OWN_CHAIN = 'translated_probe'
const ownChain = new RegExp(`\\n?\\tchain ${OWN_CHAIN} \\{\\n[^}]*\\n\\t\\}\\n`)

/** What `nft list ruleset` printed, without that chain. */
export const withoutOwnChain = (text: string): string => text.replace(ownChain, '')

/** `nft list ruleset`. */
export async function ruleset(host: Pick<Host, 'exec'>): Promise<string> {
  return withoutOwnChain((await host.exec('nft', ['list', 'ruleset'])).stdout)
}

/** Tables, chains, rules and maps, without the maps' elements: one JSON object each. */
export async function outline(host: Pick<Host, 'exec'>): Promise<readonly string[]> {
  const { nftables } = JSON.parse((await host.exec('nft', ['-j', 'list', 'ruleset'])).stdout) as {
    readonly nftables: readonly Readonly<Record<string, object>>[]
  }
  return nftables
    .map((object) => JSON.stringify(object, (key, value) => (key === 'elem' ? undefined : value)))
    .filter((line) => !line.includes(`"${OWN_CHAIN}"`))
}
