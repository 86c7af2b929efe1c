// Rules of administrators and of Docker 29 on the real kernel: they stay in force, and pods pass all else.
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parsePrefix } from '../../ipam/address.ts'
import { Keeper } from './firewall-keeper.ts'
import { ensureOwnNamespace, Neighbour } from './firewall-scene.ts'
import { run, until } from './run.ts'

ensureOwnNamespace(fileURLToPath(import.meta.url))

const sh = (script: string) => run('sh', ['-e'], { input: script })

describe('with the rules of others', () => {
  let a: Neighbour
  let b: Neighbour
  let world: Neighbour

  before(async () => {
    await sh('ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward')
    a = await Neighbour.join('pod-a', [{ here: '10.244.1.1/25', there: '10.244.1.2/25' }])
    b = await Neighbour.join('pod-b', [{ here: '10.244.1.129/25', there: '10.244.1.130/25' }])
    world = await Neighbour.join('world', [{ here: '192.0.2.1/24', there: '192.0.2.2/24' }])
  })
  after(() => {
    for (const neighbour of [a, b, world]) neighbour[Symbol.dispose]()
  })
  beforeEach(() => sh('nft flush ruleset; iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F; iptables-legacy -X'))

  const strangerOut = '-i world ! -s 192.0.2.77'
  const pods = { devices: ['pod-a', 'pod-b'], adminChains: [] }
  const byIptables = (tool: string) => ({
    keepsStrangersOut: `${tool} -P FORWARD DROP; ${tool} -N DOCKER-USER; ${tool} -A FORWARD -j DOCKER-USER
${tool} -A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
${tool} -A DOCKER-USER ${strangerOut} -j DROP; ${tool} -A DOCKER-USER -j RETURN`,
    keepsOnePodIn: `${tool} -I FORWARD -i pod-a -o world -j REJECT`,
    // Behind this an accept in the same chain is met by no packet of a pod.
    returnsPods: `${tool} -I DOCKER-USER 2 -s 10.0.0.0/8 -j RETURN`,
    nothingBehind: `${tool} -D FORWARD -i pod-a -o world -j REJECT`,
    dropsAllInACall: `${tool} -N DOCKER-USER; ${tool} -A FORWARD -j DOCKER-USER
${tool} -A FORWARD -i pod-a -o world -j REJECT; ${tool} -P FORWARD DROP
${tool} -A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; ${tool} -A DOCKER-USER -j DROP`
  })
  const administrators = [
    [
      'nft, in a chain of its own',
      {
        keepsStrangersOut: `nft -f - <<'X'
table inet guard {
  chain user { ct state established,related accept; iifname "world" ip saddr != 192.0.2.77 drop; }
  chain forward { type filter hook forward priority filter; policy drop; jump user; }
}
X`,
        keepsOnePodIn: 'nft insert rule inet guard forward iifname "pod-a" oifname "world" reject',
        returnsPods: 'nft insert rule inet guard user ip saddr 10.0.0.0/8 return',
        nothingBehind: 'nft flush chain inet guard forward; nft add rule inet guard forward jump user',
        dropsAllInACall: `nft -f - <<'X'
table inet guard {
  chain user { ct state established,related accept; drop; }
  chain forward {
    type filter hook forward priority filter; policy drop;
    jump user
    iifname "pod-a" oifname "world" reject
  }
}
X`
      }
    ],
    ['iptables-nft', byIptables('iptables-nft')],
    ['iptables-legacy', byIptables('iptables-legacy')]
  ] as const
  for (const [tool, rules] of administrators) {
    test(`what an administrator drops with ${tool} stays dropped, and pods pass all else`, async () => {
      await sh(rules.keepsStrangersOut)
      await using keeper = new Keeper(1, pods)
      await until(() => a.reaches('10.244.1.130'), { what: 'pods to reach each other' })
      await until(() => a.reaches('192.0.2.2'), { what: 'a pod to reach the world' })
      assert.equal(await world.reaches('10.244.1.2'), false, 'a stranger reaches a pod')

      await sh(rules.keepsOnePodIn)
      assert.equal(await a.reaches('192.0.2.2'), false, 'a pod reaches what it is kept out of')
      await until(async () => (await b.reaches('192.0.2.2')) && (await a.reaches('10.244.1.130')), {
        what: 'other pods to reach the world'
      })
      assert.equal(await a.reaches('192.0.2.2'), false, 'a pod reaches what it is kept out of, later')

      await sh(rules.returnsPods)
      await until(async () => (await b.reaches('192.0.2.2')) && (await a.reaches('10.244.1.130')), {
        what: 'pods to pass in spite of the RETURN'
      })
      assert.equal(await world.reaches('10.244.1.2'), false, 'a stranger reaches a pod, later')
      assert.equal(await a.reaches('192.0.2.2'), false, 'a pod reaches what it is kept out of, after the RETURN')
      assert.ok(keeper.reasons.length > 0)
    })

    test(`with ${tool} a rule behind the call of a chain that drops all stays in force`, async () => {
      await sh(rules.dropsAllInACall)
      await using keeper = new Keeper(1, pods)
      await until(async () => (await b.reaches('192.0.2.2')) && (await a.reaches('10.244.1.130')), {
        what: 'pods to pass'
      })
      assert.equal(await a.reaches('192.0.2.2'), false, 'a pod reaches what it is kept out of')
      await sh(rules.nothingBehind)
      // iptables-legacy notifies nobody.
      await until(async () => (await keeper.missing()).length === 0, { what: 'accepts instead of what RETURNs' })
      assert.ok(await a.reaches('192.0.2.2'), 'a pod is kept out of what nothing keeps it out of')
    })
  }

  test('what cuts pods off is reported as long as it does: a set with the pod network, a verdict map, a queue without a program', async () => {
    const [here, there] = ['cni0', 'weft.1']
    const networks = ['10.244.0.0/16', 'fd00:10::/48'].map((text) => parsePrefix(text) ?? assert.fail(text))
    const side = { devices: [here, there], local: [here], remote: [there], networks, adminChains: [] }
    await sh(`nft -f - <<'X'
table inet guard {
  set private { type ipv4_addr; flags interval; elements = { 172.16.0.0/12, 192.168.0.0/16 } }
  set single { type ipv4_addr; elements = { 10.244.0.0, 10.244.255.255 } }
  chain wan { ct state established,related accept; }
  chain forward {
    type filter hook forward priority filter; policy accept;
    ip saddr @single drop
    ip saddr @private drop
    iifname vmap { "eth9" : jump wan, "${there}" : jump wan }
  }
}
X`)
    await using keeper = new Keeper(1, side)
    const reported = (rule: string | undefined) =>
      until(
        () =>
          keeper.views > 0 &&
          keeper.reported.length === Number(rule !== undefined) &&
          keeper.reported.join().includes(rule ?? ''),
        { what: `a condition because of ${rule ?? 'nothing'}`, deadlineMs: 10_000 }
      )
    await reported(undefined)
    await sh('nft add element inet guard private { 10.0.0.0/8 }')
    await reported('"ip saddr @private drop"')
    await sh('nft delete element inet guard private { 10.0.0.0/8 }')
    await reported(undefined)
    await sh('nft add rule inet guard wan counter drop')
    await reported('"drop"')
    await sh('nft flush chain inet guard wan')
    await reported(undefined)
    for (const tool of ['iptables-nft', 'iptables-legacy']) {
      await sh(`${tool} -A FORWARD -j NFQUEUE --queue-num 7`)
      await reported('NFQUEUE')
      await sh(`${tool} -I FORWARD -j NFQUEUE --queue-num 7 --queue-bypass`)
      await reported(undefined)
      await sh(`${tool} -F FORWARD`)
    }
  })

  test('the rules of Docker 29: pods reach containers of pod-b, and what is not published stays closed to others', async () => {
    // moby, integration/network/bridge/iptablesdoc: pod-b is docker0, with the pod subnet.
    await sh(`t=iptables-nft; $t -P FORWARD DROP
for c in DOCKER DOCKER-BRIDGE DOCKER-CT DOCKER-FORWARD DOCKER-INTERNAL DOCKER-USER; do $t -N $c; done
$t -A FORWARD -j DOCKER-USER; $t -A FORWARD -j DOCKER-FORWARD
$t -A DOCKER ! -i pod-b -o pod-b -j DROP
$t -A DOCKER-BRIDGE -o pod-b -j DOCKER
$t -A DOCKER-CT -o pod-b -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
for c in DOCKER-CT DOCKER-INTERNAL DOCKER-BRIDGE; do $t -A DOCKER-FORWARD -j $c; done
$t -A DOCKER-FORWARD -i pod-b -j ACCEPT`)
    await using _ = new Keeper(3600, pods)
    await until(() => a.reaches('10.244.1.130'), { what: 'a pod to reach a container' })
    assert.ok(await b.reaches('10.244.1.2'), 'a container does not reach a pod')
    assert.equal(await world.reaches('10.244.1.130'), false, 'a stranger reaches a container')
    await until(() => world.reaches('10.244.1.2'), { what: 'the world to reach a pod that nobody keeps from it' })
  })
})
