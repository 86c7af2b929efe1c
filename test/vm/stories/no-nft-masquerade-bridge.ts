// A kernel whose nftables can't masquerade: iptables does, and pods leave with the node's address.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { until } from '../../lab/run.ts'
import { TwoNodes } from './two-nodes.ts'

const sh = (script: string): string => execFileSync('sh', ['-ec', script], { encoding: 'utf8' })

// What is mounted over the module's file is no module; an earlier story may have loaded it.
before(() =>
  sh(`rmmod nft_masq 2>/dev/null || true
mount --bind /dev/null "$(find /lib/modules/$(uname -r) -name 'nft_masq.ko')"`)
)
after(() => sh(`umount "$(find /lib/modules/$(uname -r) -name 'nft_masq.ko')"`))

test('without nft_masq, iptables masquerades and forwards', { timeout: 1_200_000 }, async () => {
  await using nodes = await TwoNodes.start({
    ...{ iface: 'eth0', backend: { Type: 'vxlan' }, args: ['--ip-masq'] },
    // Docker's policy, which the accepts of WEFT-FWD precede.
    underlay: async (host) => void (await host.sh('iptables-nft -P FORWARD DROP'))
  })
  await nodes.reach()
  const [first] = nodes.pods
  const [daemon] = nodes.daemons
  assert.ok(first && daemon)
  assert.ok(daemon.log.some(({ msg }) => msg.includes('lacks masquerade: iptables masquerades')))
  const rules = (await first.host.exec('iptables-nft-save', [])).stdout
  assert.match(rules, /^-A WEFT-POSTRTG -s 10\.244\.0\.0\/16 ! -d 224\.0\.0\.0\/4 .*-j MASQUERADE --random-fully$/m)
  assert.match(rules, /^-A FORWARD -m comment --comment "weft call" -j WEFT-FWD$/m)
  const capture = nodes.lab.router.spawn('tcpdump', ['-n', '-l', '-c', '1', '-i', 'any', 'icmp[icmptype] == icmp-echo'])
  const soon = (condition: () => unknown, what: string) => until(condition, { what, deadlineMs: 240_000, everyMs: 200 })
  await soon(() => capture.text().includes('listening'), 'tcpdump to listen')
  await soon(async () => {
    await first.pod.ping('192.168.10.1')
    return capture.ended
  }, 'a packet of the pod')
  assert.match(capture.text(), new RegExp(`IP ${first.host.address.replaceAll('.', '\\.')} > 192\\.168\\.10\\.1`))
})
