// --firewall=iptables on real hosts: masquerading and forwarding are chains of the iptables that the host uses, survive
// what administrators, firewalld and ufw do to it, and leave no trace when weftd goes back to nftables or is removed.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Cluster, type Resident, reachEachOther } from './cluster.ts'
import type { Place } from './lab-scene.ts'
import { until } from './run.ts'
import type { Weftd } from './weftd.ts'

const skip = process.getuid?.() !== 0
type Tool = 'iptables-nft' | 'iptables-legacy'
const other = (tool: Tool): Tool => (tool === 'iptables-nft' ? 'iptables-legacy' : 'iptables-nft')
const dual = {
  ...{ EnableIPv6: true, Network: '10.244.0.0/16', IPv6Network: 'fd00:20::/48' },
  Backend: { Type: 'vxlan' }
}
const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

/** Chains and rules of both families and tables, without policies: Weft's, and those of everybody else. */
async function rules(place: Place, tool: Tool): Promise<{ readonly weft: string; readonly others: string }> {
  const lists = ['', '6'].flatMap((six) =>
    ['nat', 'filter', 'mangle'].map((table) => `echo "*ip${six} ${table}"; ip${six}${tool.slice(2)}-save -t ${table}`)
  )
  const { stdout } = await place.sh(lists.join('\n'))
  const lines = stdout.split('\n').filter((line) => /^(-A|:\S+ -|\*ip)/.test(line))
  const isWeft = (line: string) => line.includes('WEFT-') || line.startsWith('*ip')
  const text = (keep: (line: string) => boolean) => lines.filter(keep).join('\n')
  return { weft: text(isWeft), others: text((line) => !isWeft(line)) }
}

const hasRules = (text: string): boolean => /^(-A|:)/m.test(text)

/** Weft's table there. */
const inNftables = async (place: Place): Promise<string> =>
  (await place.exec('nft', ['list', 'table', 'inet', 'weft'])).stdout

/** The source address that the place sees when the pod pings this address. */
async function seenBy(place: Place, pod: Resident, address: string): Promise<string | undefined> {
  const filter = address.includes(':') ? 'icmp6 and ip6[40] == 128' : 'icmp[icmptype] == icmp-echo'
  const capture = place.spawn('tcpdump', ['-n', '-l', '-c', '1', '-i', 'any', filter])
  await until(() => capture.text().includes('listening'), { what: 'tcpdump to listen' })
  await until(
    async () => {
      await pod.pod.ping(address)
      return capture.ended
    },
    { what: 'a packet' }
  )
  return /IP6? ([\da-f.:]+) > /.exec(capture.text())?.[1]
}

/** What an administrator and kube-proxy have there before weftd comes. */
const standing = (tool: Tool): string => `${tool} -t nat -N KUBE-POSTROUTING
${tool} -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
${tool} -t nat -A KUBE-POSTROUTING -j MASQUERADE
${tool} -t nat -A POSTROUTING -j KUBE-POSTROUTING
${tool} -A FORWARD -i eth9 -j DROP`

/** Files as these programs load them. */
const administrator = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o eth8 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -i eth8 -j DROP
COMMIT`
const firewalld = `*nat
:POSTROUTING ACCEPT [0:0]
:POSTROUTING_direct - [0:0]
:POST_public - [0:0]
-A POSTROUTING -j POSTROUTING_direct
-A POSTROUTING -o eth7 -g POST_public
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:FORWARD_direct - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j FORWARD_direct
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT`
const ufw = `*filter
:FORWARD DROP [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
COMMIT`

const load = (tool: Tool, file: string, options = ''): string => `${tool}-restore ${options} <<'END'\n${file}\nEND`

const disasters = (tool: Tool): readonly (readonly [what: string, how: string])[] => [
  ['iptables -F', `${tool} -F; ${tool} -t nat -F; ip6${tool.slice(2)} -F; ip6${tool.slice(2)} -t nat -F`],
  ['iptables -F and -X', `${tool} -F; ${tool} -X; ${tool} -t nat -F; ${tool} -t nat -X`],
  ['iptables-restore of an administrator’s file', load(tool, administrator)],
  ['nft flush ruleset', 'nft flush ruleset'],
  [
    'firewalld’s reload',
    `${tool === 'iptables-nft' ? 'for table in nat filter; do nft delete table ip $table || true; done' : `${tool} -P FORWARD ACCEPT`}
${load(tool, firewalld)}`
  ],
  ['ufw’s reload', `${tool} -F FORWARD; ${load(tool, ufw, '-n')}`]
]

/** Does it on the host, and waits until Weft's chains are as before; what others have stays as they made it. */
async function survives(place: Place, tool: Tool, whole: string, [what, how]: readonly [string, string]) {
  await place.sh(how)
  const begun = performance.now()
  const { others } = await rules(place, tool)
  let now = await rules(place, tool)
  const isBack = async () => {
    now = await rules(place, tool)
    return now.weft === whole
  }
  await until(isBack, { what: `Weft's chains after ${what}` }).catch((cause: unknown) => {
    throw new Error(`${now.weft}\nis not as before:\n${whole}`, { cause })
  })
  process.stdout.write(`# ${tool}: back ${Math.round(performance.now() - begun)} ms after ${what}\n`)
  // Accepts for pods may be among them, where the reload drops; those have Weft's comment.
  const strip = (text: string) => text.replaceAll(/.*--comment weft -j.*\n?/g, '')
  assert.equal(strip(now.others), strip(others), what)
}

describe('--firewall=iptables', { skip }, () => {
  for (const tool of ['iptables-nft', 'iptables-legacy'] as const) {
    test(`puts masquerading and forwarding into ${tool}, where kubelet has its chains, and keeps them there`, async () => {
      const args = ['--ip-masq', '--firewall=iptables']
      await using cluster = await Cluster.start({ hosts: [2], network: dual, args, start: false, ipv6: true })
      for (const node of cluster.nodes) {
        await node.sh(`${tool} -t mangle -N KUBE-IPTABLES-HINT\n${standing(tool)}`)
        await cluster.join(node)
      }
      const here = cluster.node(1)
      const { others } = await rules(here, tool)
      const [a, b] = (await cluster.podOnEach()) as [Resident, Resident]
      const exempt = await cluster.pod(here, { ipMasq: false })
      const { router } = cluster.lab

      assert.equal(await seenBy(router, a, '192.168.10.1'), here.address)
      assert.equal(await seenBy(router, a, 'fd00:10::1'), here.address6)
      assert.equal(await seenBy(b.pod, a, b.address), a.address)
      assert.equal(await seenBy(router, exempt, '192.168.10.1'), exempt.address, 'a pod with ipMasq false')

      const whole = (await rules(here, tool)).weft
      assert.equal(whole.split('\n').filter((line) => line.includes('-j WEFT-')).length, 4)
      assert.equal((await rules(here, tool)).others, others)
      assert.equal(hasRules((await rules(here, other(tool))).weft), false)
      assert.doesNotMatch(await inNftables(here), /chain (postrouting|forward) /)

      for (const disaster of disasters(tool)) await survives(here, tool, whole, disaster)
      await reachEachOther([a, b])
      assert.equal(await seenBy(router, a, '192.168.10.1'), here.address)
    })
  }

  test('no restart adds a rule; nftables and back, another iptables and weftd clean leave nothing of the former', async () => {
    await using cluster = await Cluster.start({ hosts: [1], args: ['--ip-masq'], start: false })
    const here = cluster.node(1)
    const ours = async (tool: Tool) => (await rules(here, tool)).weft
    const start = (kind: string): Promise<Weftd> => cluster.join(here, { args: [`--firewall=${kind}`] })
    let daemon = await start('iptables')
    const whole = await ours('iptables-nft')
    assert.ok(hasRules(whole))
    for (let n = 0; n < 3; n++) {
      await daemon.stop()
      daemon = await start('iptables')
      assert.equal(await ours('iptables-nft'), whole)
    }
    await daemon.stop()
    daemon = await start('nftables')
    await until(async () => !hasRules(await ours('iptables-nft')), { what: 'iptables to have nothing of Weft' })
    assert.match(await inNftables(here), /chain postrouting[^}]*masquerade/)
    await daemon.stop()
    daemon = await start('iptables')
    await until(async () => !/chain (postrouting|forward) /.test(await inNftables(here)), {
      what: 'nftables to have none'
    })
    assert.equal(await ours('iptables-nft'), whole)

    await here.sh('iptables-legacy -t mangle -N KUBE-IPTABLES-HINT')
    await until(async () => (await ours('iptables-legacy')) === whole, { what: 'the chains in iptables-legacy' })
    await until(async () => !hasRules(await ours('iptables-nft')), { what: 'none in iptables-nft' })

    await daemon.stop()
    await here.exec(process.execPath, [script('../../daemon/main.ts'), 'clean'])
    assert.equal(hasRules(await ours('iptables-legacy')), false)
    assert.equal(hasRules(await ours('iptables-nft')), false)
  })
})

for (const value of [true, false, undefined]) {
  test(`EnableNFTables decides nothing for host ports: ${value}`, { skip }, async () => {
    const network = { Network: '10.244.0.0/16', EnableNFTables: value, Backend: { Type: 'host-gw' } }
    await using cluster = await Cluster.start({ hosts: [1], network, args: ['--ip-masq'] })
    const here = cluster.node(1)
    const portMappings = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }]
    const server = await cluster.pod(here, { runtimeConfig: { portMappings } })
    const program = server.pod.spawn(process.execPath, [script('echo-server.ts'), 'server', '80'])
    await until(() => program.text().includes('listening'), { what: 'the server in the pod' })
    const asked = await cluster.lab.router.exec(process.execPath, [
      ...[script('echo-client.ts'), 'tcp', here.address, '8080', '0']
    ])
    assert.equal(asked.stdout.trim(), 'server sees 192.168.10.1')
    assert.match(await inNftables(here), /chain postrouting[^}]*masquerade/)
    for (const tool of ['iptables-nft', 'iptables-legacy'] as const)
      assert.equal(hasRules((await rules(here, tool)).weft), false, tool)
  })
}

test('--ip-blackhole-route is there in both families, and gone without the flag', { skip }, async () => {
  await using cluster = await Cluster.start({ hosts: [1], network: dual, start: false, ipv6: true })
  const here = cluster.node(1)
  const blackholes = async () =>
    (await here.sh('ip -4 route show type blackhole; ip -6 route show type blackhole')).stdout.trim().split('\n')
  const daemon = await cluster.join(here, { args: ['--ip-blackhole-route'] })
  const [v4 = '', v6 = '', ...more] = await blackholes()
  assert.match(v4, /^blackhole 10\.244\.\d+\.0\/24 /)
  assert.match(v6, /^blackhole fd00:20:0:[\da-f]+::\/64 /)
  assert.deepEqual(more, [])
  const unused = v4.replace(/^blackhole (\d+\.\d+\.\d+)\.0.*$/, '$1.200')
  assert.equal((await here.exec('ip', ['route', 'get', unused], { check: false })).code === 0, false, unused)
  await here.sh(`ip route del ${v4}`)
  await until(async () => (await blackholes()).length === 2, { what: 'the deleted one to be back' })
  // A pod is reached through its own route.
  const pod = await cluster.pod(here)
  assert.equal((await here.ping(pod.address)).received, 1)
  await daemon.stop()
  await cluster.join(here)
  await until(async () => (await blackholes()).join('') === '', { what: 'no blackhole' })
})
