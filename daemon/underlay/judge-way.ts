// Judges the way of a packet, hop by hop, from the facts that follow-way.ts asked for. The first hop that is wrong is
// what to fix; later ones may only follow from it.
import { formatIp, formatPrefix, type Ip, network, sameIp } from '../../ipam/address.ts'
import type { InsidePod, NeighbourNow, RouteNow } from '../state/inspection.ts'
import type { Route } from '../state/object.ts'
import { textOf } from '../state/text.ts'
import { firewallHop } from './judge-trace.ts'
import type { Hop, LinkFact, LocalPod, NeighbourFact, Refusal, To, WayFacts } from './way-facts.ts'

export const firstFault = (hops: readonly Hop[]): Hop | undefined => hops.find(({ state }) => state === 'wrong')

export function judgeWay(facts: WayFacts): readonly Hop[] {
  const hops = [
    endsHop(facts),
    ...(facts.from.kind === 'pod' ? podHops(facts.from.pod, facts) : []),
    ...settingHops(facts),
    routeHop(facts),
    ...outHops(facts),
    ...toHops(facts),
    firewallHop(facts),
    ...backHops(facts),
    ...probeHops(facts),
    ...translatedHops(facts),
    ...peerHops(facts)
  ]
  return [...hops, answerHop(facts, firstFault(hops) === undefined)]
}

const whole = (at: Hop['at'], text: string): Hop => ({ at, state: 'whole', text })
const unknown = (at: Hop['at'], text: string): Hop => ({ at, state: 'unknown', text })
const wrong = (at: Hop['at'], text: string, cure: string): Hop => ({ at, state: 'wrong', text, cure })

export function addressOf(to: To): Ip {
  if (to.kind === 'pod') return to.pod.address
  return to.kind === 'remote' ? to.remote.address : to.address
}

/** By its name, or else by its address. */
function nodeOf({ remote: { node, publicIp, key } }: Extract<To, { kind: 'remote' }>): string {
  return node || (publicIp === undefined ? `the node of lease ${key}` : `node ${formatIp(publicIp)}`)
}

function endsHop({ to }: WayFacts): Hop {
  const address = formatIp(addressOf(to))
  switch (to.kind) {
    case 'pod':
      return whole('ends', `${address} is ${to.pod.name} on this node`)
    case 'own':
      return whole('ends', `${address} is an address of this node`)
    case 'remote': {
      const { key, skipped } = to.remote
      if (skipped === undefined) return whole('ends', `${address} is in lease ${key} of ${nodeOf(to)}`)
      const cure = 'fix the reason on that node; weftctl nodes lists all leases'
      return wrong('ends', `lease ${key}, which ${address} is in, is not used: ${skipped}`, cure)
    }
    case 'elsewhere':
      if (to.network === undefined) {
        const what = to.node === undefined ? '' : `, the address of node ${to.node}`
        const text = `${address} is outside of the pod network (${to.networks})${what}: this host's own routes lead there`
        return to.node === undefined ? unknown('ends', text) : whole('ends', text)
      }
      if (to.isOurs)
        return wrong(
          'ends',
          `${address} is in this node's own subnet, but no pod here has it`,
          'check the address (kubectl get pods -o wide); weftctl pods lists the pods of this node'
        )
      return wrong(
        'ends',
        `${address} is in the pod network ${to.network}, but in no node's lease`,
        'check the address (kubectl get pods -o wide); weftctl nodes lists all leases; for a node that is missing there, run weftctl status on it'
      )
  }
}

function podHops(pod: LocalPod, { inside, podLinks, to }: WayFacts): readonly Hop[] {
  return [insideHop('pod', pod, inside, addressOf(to)), linksHop('pod-link', podLinks)]
}

function insideHop(at: 'pod' | 'to-pod', pod: LocalPod, inside: InsidePod | undefined, to: Ip | undefined): Hop {
  if (inside === undefined) return unknown(at, `the network namespace of ${pod.name} was not found: not looked into`)
  const { link, addresses, route } = inside
  const { ifname, name, address } = pod
  const again = `delete the pod, so that it is set up again; weftctl why pod ${name} says what was set up`
  if (link === undefined) return wrong(at, `${name} has no interface ${ifname} any more`, again)
  if (link.up === false)
    return wrong(at, `${ifname} in ${name} is down`, `find the program in the pod that set it down, or: ${again}`)
  if (!addresses.some((each) => sameIp(each, address)))
    return wrong(at, `${ifname} in ${name} has lost its address ${formatIp(address)}`, again)
  if (to === undefined) return whole(at, `${ifname} in ${name} is up and has ${formatIp(address)}`)
  if (route.kind === 'refused')
    return wrong(
      at,
      `${name} has no route to ${formatIp(to)} (${route.errno})`,
      `add a default route to the network's configuration ("routes": [{ "dst": "0.0.0.0/0" }] in its ipam) and delete the pod`
    )
  if (route.device !== ifname)
    return unknown(at, `${name} sends to ${formatIp(to)} by ${route.device ?? 'itself'}, not by ${ifname}`)
  return whole(at, `${name} has ${formatIp(address)}, and the route "${routeText(route.entry)}"`)
}

const routeText = (route: Route): string => textOf(route).replace(/^route /, '')

/** All links of a hop; the first that is down makes it wrong. */
function linksHop(at: Hop['at'], links: readonly LinkFact[], least = 0): Hop {
  for (const { name, now } of links) {
    if (now === undefined)
      return wrong(at, `there is no link ${name}`, `weftctl status says why weftd has not created it`)
    if (now.up === false) return wrong(at, `${name} is down`, `ip link set dev ${name} up`)
    if (now.carrier === false)
      return wrong(
        at,
        `${name} has no carrier`,
        `check the cable, or the other end of ${name} (ip -d link show ${name})`
      )
    if (now.mtu !== undefined && now.mtu < least)
      return wrong(
        at,
        `${name} has MTU ${now.mtu}, but pods send packets that need ${least}`,
        `ip link set dev ${name} mtu ${least}, or lower Backend.MTU and restart the pods`
      )
  }
  return whole(
    at,
    links.map(({ name, now }) => `${name} is up${now?.mtu === undefined ? '' : `, MTU ${now.mtu}`}`).join('; ')
  )
}

function settingHops({ from, forwarding, isBridged }: WayFacts): readonly Hop[] {
  if (from.kind === 'host' || isBridged || forwarding.length === 0) return []
  const off = forwarding.find(({ value }) => value === '0')
  if (off !== undefined)
    return [
      wrong(
        'settings',
        `forwarding is off: ${dotted(off.path)}=0`,
        `sysctl -w ${dotted(off.path)}=1, and find what sets it to 0 (/etc/sysctl.d; weftd sets it back)`
      )
    ]
  return [whole('settings', `forwarding is on (${forwarding.map(({ path }) => dotted(path)).join(', ')})`)]
}

const dotted = (path: string): string => (path.includes('.') ? path : path.replaceAll('/', '.'))

function routeHop(facts: WayFacts): Hop {
  const { route, wantedRoute, isBridged } = facts
  if (isBridged) return whole('route', 'both pods are on one bridge')
  if (route.kind === 'refused') return refusedHop('route', facts.refusal, route.errno, formatIp(addressOf(facts.to)))
  const text = routeText(route.entry)
  if (wantedRoute === undefined || isSameRoute(route.entry, wantedRoute))
    return whole('route', `the kernel takes the route "${text}"`)
  return wrong(
    'route',
    `the kernel takes the route "${text}" instead of weftd's "${routeText(wantedRoute)}"`,
    `remove that route or the policy rule that leads to it: ip rule; ip route show table ${route.entry.table}`
  )
}

const isSameRoute = (a: Route, b: Route): boolean =>
  a.table === b.table &&
  a.device === b.device &&
  formatPrefix(network(a.destination)) === formatPrefix(network(b.destination))

function refusedHop(at: 'route' | 'back-route', refusal: Refusal | undefined, errno: string, to: string): Hop {
  if (refusal?.rule !== undefined)
    return wrong(
      at,
      `the policy rule "${refusal.rule.text}" refuses packets to ${to}`,
      `ip rule del pref ${refusal.rule.priority}, or put a rule for the pod network before it`
    )
  const filtered = refusal && filteredHop(at, refusal)
  if (filtered !== undefined) return filtered
  const own = refusal?.own
  const reason = own?.kind === 'refused' ? own.errno : errno
  if (reason === 'ENETUNREACH')
    return wrong(at, `this host has no route to ${to}`, 'check ip route; weftctl diff says what weftd has not set up')
  if (own?.kind === 'found' && refusal !== undefined)
    return wrong(
      at,
      `the kernel refuses packets to ${to} that come by ${refusal.device} from ${formatIp(refusal.source)} (${errno}), but not its own`,
      `check ip route get ${to} from ${formatIp(refusal.source)} iif ${refusal.device}, and ip rule`
    )
  return wrong(
    at,
    `the kernel refuses packets to ${to} (${reason}), as by a blackhole, unreachable or prohibit route`,
    `find it: ip rule; ip route show table all | grep -E 'blackhole|unreachable|prohibit'`
  )
}

/** The larger of the setting of all devices and the device's own counts: 1 asks for the same device, 2 for any route. */
function filteredHop(at: Hop['at'], { source, device, reverse, filter }: Refusal): Hop | undefined {
  const mode = Math.max(0, ...filter.map(({ value }) => Number(value ?? 0)))
  const isLost = reverse.kind === 'refused' || (mode === 1 && reverse.device !== device)
  if (mode === 0 || !isLost) return undefined
  const [set, from] = [filter.filter(({ value }) => value === String(mode)), formatIp(source)]
  const names = set.map(({ path, value }) => `${dotted(path)}=${value}`).join(', ')
  const leads = reverse.kind === 'refused' ? 'there is no route' : `the route "${routeText(reverse.entry)}" leads`
  return wrong(
    at,
    `the reverse path filter drops packets from ${from} on ${device} (${names}): ${leads} to ${from} ${reverse.kind === 'refused' ? '' : 'elsewhere'}`.trimEnd(),
    `fix that route (ip route get ${from}), or sysctl -w ${set.map(({ path }) => `${dotted(path)}=0`).join(' ')}`
  )
}

function outHops(facts: WayFacts): readonly Hop[] {
  const { out, neighbour, entry, underlay, to, mtu } = facts
  if (out === undefined || to.kind === 'pod' || to.kind === 'own') return []
  return [
    linksHop('out-link', [out], to.kind === 'remote' ? mtu : 0),
    ...(neighbour === undefined ? [] : [neighbourHop('neighbour', neighbour)]),
    ...(entry === undefined ? [] : [entryHop(entry)]),
    ...(underlay === undefined ? [] : underlayHops(facts, underlay))
  ]
}

function neighbourHop(at: 'neighbour' | 'tunnel-neighbour', { device, ip, now, wanted }: NeighbourFact): Hop {
  const entry = `${formatIp(ip)} on ${device}`
  if (now === 'unknown') return unknown(at, `this kernel does not say which neighbour ${entry} is`)
  if (wanted !== undefined) {
    const cure = 'weftd restores it; if it does not stay, weftctl status names the program that removes it'
    if (now === undefined)
      return wrong(at, `the neighbour entry for ${entry} is missing; it should be ${wanted.mac}`, cure)
    if (now.mac !== wanted.mac)
      return wrong(
        at,
        `the neighbour entry for ${entry} is ${now.mac ?? now.state}; the lease says ${wanted.mac}`,
        cure
      )
    return whole(at, `${entry} has ${now.mac}, as the lease says`)
  }
  return resolvedHop(at, entry, device, now)
}

function resolvedHop(
  at: 'neighbour' | 'tunnel-neighbour',
  entry: string,
  device: string,
  now: NeighbourNow | undefined
): Hop {
  if (now === undefined) return unknown(at, `${entry} has not been resolved yet`)
  if (now.state === 'failed' || now.state === 'incomplete')
    return wrong(
      at,
      `nobody answers for ${entry} (neighbour ${now.state})`,
      `check whether that host is up, and in the same network on the link of ${device}`
    )
  return whole(at, `${entry} has ${now.mac ?? 'no hardware address'} (${now.state})`)
}

function entryHop({ wanted, now }: NonNullable<WayFacts['entry']>): Hop {
  const at = 'forwarding-entry'
  const { mac, device, destination } = wanted
  const cure = 'weftd restores it; if it does not stay, weftctl status names the program that removes it'
  if (now === 'unknown') return unknown(at, `this kernel does not say where ${device} sends frames for ${mac}`)
  if (now === undefined)
    return wrong(
      at,
      `the FDB entry for ${mac} on ${device} is missing; it should lead to ${formatIp(destination)}`,
      cure
    )
  if (!sameIp(now, destination))
    return wrong(
      at,
      `the FDB entry for ${mac} on ${device} leads to ${formatIp(now)}; the lease says ${formatIp(destination)}`,
      cure
    )
  return whole(at, `${device} sends frames for ${mac} to ${formatIp(now)}`)
}

function underlayHops(facts: WayFacts, underlay: NonNullable<WayFacts['underlay']>): readonly Hop[] {
  const { publicIp, port, overhead, route, link, neighbour } = underlay
  const ip = formatIp(publicIp)
  // A link that is down has lost its routes, too.
  const links = link === undefined ? [] : [linksHop('tunnel-link', [link], facts.mtu + overhead)]
  if (route.kind === 'refused') {
    const text = `this host has no route to the other node's address ${ip} (${route.errno})`
    const cure = `check ip route get ${ip}; if that node has another address, set --public-ip there`
    return [...links, wrong('tunnel-route', text, cure)]
  }
  return [
    ...links,
    whole('tunnel-route', `the tunnel's packets (UDP ${port}) go to ${ip} by "${routeText(route.entry)}"`),
    ...(neighbour === undefined ? [] : [neighbourHop('tunnel-neighbour', neighbour)])
  ]
}

function toHops({ to, toLinks, toInside }: WayFacts): readonly Hop[] {
  if (to.kind !== 'pod') return []
  return [linksHop('to-link', toLinks), insideHop('to-pod', to.pod, toInside, undefined)]
}

/** The answer's way on this host: from the device by which the request left to the pod. */
function backHops(facts: WayFacts): readonly Hop[] {
  const { back, from, cameBy, out } = facts
  if (back === undefined || from.kind !== 'pod' || out === undefined) return []
  const address = formatIp(from.pod.address)
  if (back.kind === 'refused') return [refusedHop('back-route', facts.backRefusal, back.errno, address)]
  return [backHop(back, address, cameBy, out.name)]
}

function backHop(
  { device, entry }: Extract<RouteNow, { kind: 'found' }>,
  address: string,
  cameBy: string | undefined,
  out: string
): Hop {
  if (device === cameBy) return whole('back-route', `answers that come by ${out} are sent to ${address} by ${device}`)
  return wrong(
    'back-route',
    `answers to ${address} that come by ${out} take the route "${routeText(entry)}" instead of ${cameBy}`,
    `remove that route or the policy rule that leads to it: ip rule; ip route show table ${entry.table}`
  )
}

/** What only packets of full size meet: one small packet that is answered proves nothing about it. */
const ABOUT_SIZE = 'large-lost'

function probeHops({ probes, to, echo }: WayFacts): readonly Hop[] {
  if (to.kind !== 'remote') return []
  const { family } = to.remote.address
  const found = probes?.find(({ way, family: of }) => way === 'pods' && of === family)
  if (found === undefined || found.verdict === 'not-asked')
    return [unknown('probe', `not asked yet: ${found?.text ?? 'weftd has not probed this node'}`)]
  if (found.verdict === 'whole') return [whole('probe', found.text)]
  // Probes come each some seconds, or minutes in a large network; and a path may lose some packets only.
  if (echo.answeredUs !== undefined && found.verdict !== ABOUT_SIZE)
    return [unknown('probe', `${found.text}; but this packet has just been answered`)]
  return [wrong('probe', found.text, found.cure ?? 'weftctl peers says more')]
}

/** Once it has been asked: an ICMP echo says nothing about translated packets. */
function translatedHops({ probes, to }: WayFacts): readonly Hop[] {
  if (to.kind !== 'remote') return []
  const { family } = to.remote.address
  const found = probes?.find(({ way, family: of }) => way === 'translated' && of === family)
  if (found === undefined || found.verdict === 'not-asked') return []
  if (found.verdict === 'whole') return [whole('translated', found.text)]
  return [wrong('translated', found.text, found.cure ?? 'weftctl peers says more')]
}

function peerHops({ peer, to, echo }: WayFacts): readonly Hop[] {
  if (to.kind !== 'remote') return []
  const node = nodeOf(to)
  if (peer === undefined) return [unknown('peer', `what ${node} reports is not known here; run weftctl why there, too`)]
  if (peer.bad.length === 0)
    return echo.answeredUs === undefined
      ? [unknown('peer', `${node} reported no fault on its path here, perhaps before there was one`)]
      : [whole('peer', `${node} reports no fault on its path here`)]
  const text = `${node} reports: ${peer.bad.map((each) => each.text).join('; ')}`
  if (echo.answeredUs !== undefined && !peer.bad.some(({ verdict }) => verdict === ABOUT_SIZE))
    return [unknown('peer', `${text}; but this packet has just been answered`)]
  return [wrong('peer', text, `run weftctl peers, or weftctl why node, on ${node}`)]
}

function answerHop({ echo, to }: WayFacts, isFirst: boolean): Hop {
  const address = formatIp(addressOf(to))
  const { unsent, answeredUs, refusal } = echo
  if (unsent !== undefined) {
    if (unsent.endsWith('EPERM'))
      return wrong(
        'answer',
        `a firewall where the packet was sent dropped it (${unsent})`,
        'nft list ruleset in that network namespace'
      )
    return unknown('answer', `no packet could be sent to ${address}: ${unsent}`)
  }
  if (answeredUs !== undefined)
    return whole('answer', `${address} answered one ICMP echo request in ${Math.round(answeredUs / 100) / 10} ms`)
  if (refusal !== undefined)
    return wrong(
      'answer',
      `${refusal.from.value === 0n ? 'a host on the path' : formatIp(refusal.from)} answered for ${address}: ${refusal.text}`,
      'look at the routes and the firewall of that host'
    )
  const lost = `${address} did not answer an ICMP echo request within a second`
  if (to.kind === 'elsewhere')
    return unknown('answer', `${lost}; it may answer none, or have no route back to the pod's address (--ip-masq)`)
  if (to.kind !== 'remote') return wrong('answer', lost, cureOfSilence(to))
  if (to.remote.isGuess)
    return unknown('answer', `${lost}; ${nodeOf(to)} has it only with pods on its bridge: name a pod's address instead`)
  return wrong('answer', isFirst ? `${lost}, and nothing wrong was found on this node` : lost, cureOfSilence(to))
}

const cureOfSilence = (to: To): string =>
  to.kind === 'remote'
    ? `run weftctl why address on ${nodeOf(to)} for the path from there; check that a pod has the address and that its firewall lets ICMP in`
    : 'check that the pod still has the address, and its own firewall and NetworkPolicies'
