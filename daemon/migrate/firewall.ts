// The firewall of a node that is moved: flannel's chains, which are removed once Weft's rules are there, and Weft's,
// which are removed once flanneld's are there again.
import { existsSync, readFileSync } from 'node:fs'
import { reasonOf, WeftError } from '../base/error.ts'
import { legacyRemoval, otherChains, removeOtherChains, textOfNamed } from '../kernel/nftables/other-chains.ts'
import { NftSession } from '../kernel/nftables/session.ts'
import { mustRun, runProgram } from './program.ts'

const FLANNEL = /^FLANNEL-(POSTRTG|FWD)$/
const FLANNEL_TABLE = /^flannel-ipv[46]$/
const WANTED = { isTable: (name: string) => FLANNEL_TABLE.test(name), isChain: (name: string) => FLANNEL.test(name) }
/** One for each pod with host ports, by the reference's portmap. */
const HOST_PORT = /^CNI-DN-/
/** Weft's own chains that flanneld's replace; those of host ports stay for their pods. */
const REPLACED = new Set(['postrouting', 'forward'])

/** iptables-legacy keeps rules apart from nftables. */
const LEGACY = [
  ['iptables-legacy', '/proc/net/ip_tables_names'],
  ['ip6tables-legacy', '/proc/net/ip6_tables_names']
] as const

async function withNft<T>(work: (nft: NftSession) => Promise<T>): Promise<T> {
  try {
    using nft = new NftSession()
    return await work(nft)
  } catch (cause) {
    if (cause instanceof WeftError) throw cause
    throw new WeftError(
      'MIGRATE_FAILED',
      `the firewall cannot be read or changed: ${reasonOf(cause)}`,
      'run weftctl as root on the node itself; then run the same command again',
      { cause }
    )
  }
}

/** Of each tool whose tables exist: asking for others would create them. */
async function legacySaved(): Promise<readonly { readonly tool: string; readonly saved: string }[]> {
  const found: { readonly tool: string; readonly saved: string }[] = []
  for (const [tool, names] of LEGACY) {
    if (!existsSync(names) || readFileSync(names, 'utf8').trim() === '') continue
    const { exit: ended, stdout: saved } = await runProgram([`${tool}-save`])
    if (ended === 0) found.push({ tool, saved })
  }
  return found
}

const legacyChains = (saved: string): readonly string[] =>
  [...saved.matchAll(/^:(\S+) /gm)].map(([, name = '']) => name)

type FirewallFacts = { readonly chains: readonly string[]; readonly hostPortChains: number }

export const firewallFacts = (): Promise<FirewallFacts> =>
  withNft((nft) =>
    nft.exclusive(async (run) => {
      const chains = (await otherChains(run, WANTED)).map(textOfNamed)
      const ports = await otherChains(run, { isTable: () => false, isChain: (name) => HOST_PORT.test(name) })
      const legacy = await legacySaved()
      const names = legacy.flatMap(({ tool, saved }) => legacyChains(saved).map((name) => ({ tool, name })))
      return {
        chains: [
          ...chains,
          ...names.filter(({ name }) => FLANNEL.test(name)).map(({ tool, name }) => `${tool} ${name}`)
        ],
        hostPortChains: ports.length + names.filter(({ name }) => HOST_PORT.test(name)).length
      }
    })
  )

/** Removes flannel's chains and tables. Errors: MIGRATE_FAILED. */
export const removeFlannelRules = (): Promise<void> =>
  withNft(async (nft) => {
    await nft.exclusive(async (run) => removeOtherChains(run, await otherChains(run, WANTED)))
    for (const { tool, saved } of await legacySaved()) {
      const input = legacyRemoval(saved, (name) => FLANNEL.test(name))
      if (input !== '') await mustRun([`${tool}-restore`, '--noflush'], { input })
    }
  })

/** Removes Weft's masquerade and forward rules. `table` is Weft's. Errors: MIGRATE_FAILED. */
export const removeWeftRules = (table: string): Promise<void> =>
  withNft((nft) =>
    nft.exclusive(async (run) => {
      const all = await otherChains(run, { isTable: () => false, isChain: (name) => REPLACED.has(name) })
      await removeOtherChains(
        run,
        all.filter((each) => each.table === table)
      )
    })
  )
