// Everything that calls can leave behind: on a host (links, addresses, routes, rules, reservations) as one text, and in
// the daemon's process.
import { readdir, readFile, readlink } from 'node:fs/promises'
import type { Place } from './lab-scene.ts'
import { withoutOwnChain } from './ruleset.ts'
import { until } from './run.ts'

export type RecordOptions = {
  /** Bridges and what hangs on them: the last pod of a bridge leaves it there. Shown when absent. */
  readonly bridges?: boolean
  /** Folders of networks and their last addresses, which outlive every pod. Shown when absent. */
  readonly networks?: boolean
}

const SCRIPT = `
echo "# links"; ip -o link | sed 's/^[0-9]*: //; s/@[^ :]*:/:/; s/ \\(state\\|qlen\\) [^ ]*//g'
echo "# addresses"; ip -o addr | sed 's/^[0-9]*: //; s/\\\\.*//'
echo "# routes"; ip route show table all; ip -6 route show table all
echo "# neighbours"; ip neigh show nud permanent; bridge fdb show | grep -v 'self permanent\\|33:33:\\|01:00:5e:' || true
echo "# rules"; nft -s list ruleset
echo "# qdiscs"; tc qdisc show | sed 's/ [0-9a-f]*: / /' | sort
echo "# files"
for root in /var/lib/cni /run/weft-fuzz; do
  [ -d "$root" ] || continue
  find "$root" -type f ! -name lock ! -path '*/.weft-boot/*' | sort | while read -r file; do echo "$file $(tr '\\r\\n' '  ' < "$file")"; done
done
`

/** The host's state as text, each line one object; equal texts are equal states. */
export async function recordOf(host: Place, options: RecordOptions = {}): Promise<string> {
  const { bridges = true, networks = true } = options
  const stdout = withoutOwnChain((await host.sh(SCRIPT)).stdout)
  const names = bridges
    ? []
    : (await host.ip('link', 'show', 'type', 'bridge')).map((link) => (link as { ifname: string }).ifname)
  // A bridge that had a pod with host ports is guarded for as long as it is there.
  const guard =
    names.length > 0 ? new RegExp(`"(${names.map((name) => RegExp.escape(name)).join('|')})"(,\\s+)?`, 'g') : undefined
  const ofBridge = (line: string) => names.some((name) => new RegExp(`(^| )${RegExp.escape(name)}(:| |$)`).test(line))
  return (
    (guard === undefined ? stdout : stdout.replaceAll(guard, ''))
      .split('\n')
      // Whether a bridge without ports has a carrier yet or no more is a matter of moments.
      .map((line) => line.replaceAll(/NO-CARRIER,|,LOWER_UP| linkdown/g, '').trimEnd())
      // Link-local addresses are the kernel's, and take a second to become what they are.
      .filter((line) => !/\b(fe80|ff00)::/.test(line))
      .filter((line) => !ofBridge(line) && (networks || !line.includes('/last_reserved_ip.')))
      .join('\n')
  )
}

/** Files that a process has open. */
export const descriptors = async (pid: number): Promise<number> => (await readdir(`/proc/${pid}/fd`)).length

/** Waits until a process has no more files open than `most`; fails with what they are. */
export async function atMostOpen(pid: number, most: number, deadlineMs = 60_000): Promise<void> {
  const what = `at most ${most} open files in process ${pid}`
  await until(async () => (await descriptors(pid)) <= most, { what, deadlineMs }).catch(async (cause: unknown) => {
    const names = await readdir(`/proc/${pid}/fd`)
    const open = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => 'closed')))
    throw new Error(`${what}: ${open.toSorted().join(' ')}`, { cause })
  })
}

/** Memory of a process that nobody else shares, in MiB. */
export async function residentMiB(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}
