// What pods leave on a host while they live, and must not leave after their end: one line for each thing, for
// comparison.
import { linesOf } from './cluster.ts'
import type { Host } from './host.ts'

/**
 * Links, addresses reserved, namespaces, entries of libcni's cache, host ports and shapers, with the daemon's own
 * things left out.
 */
export async function podTraces(host: Host): Promise<readonly string[]> {
  const links = (await host.ip('link', 'show')) as readonly { readonly ifname: string; readonly ifalias?: string }[]
  const files = await linesOf(
    host,
    'sh',
    '-c',
    'find /var/lib/cni/networks /var/lib/cni/results /run/netns -type f ! -name lock ! -path "*/.weft-boot/*" ! -name "last_reserved_ip.*" 2>/dev/null || true'
  )
  const elements = await linesOf(host, 'nft', 'list', 'maps')
  return [
    ...links.filter(({ ifname }) => /^(veth|ifb|weft-|bwp)/.test(ifname)).map(({ ifname }) => `link ${ifname}`),
    ...files,
    ...elements.filter((line) => /: \d+\.\d+\.\d+\.\d+/.test(line))
  ].sort()
}
