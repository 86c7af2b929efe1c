// The unit under a real systemd, in a container with a host's network: enable --now returns when pods can be served,
// and a start that waits says what for.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Lab } from './hosts.ts'
import { noSystemd, runInSystemd } from './systemd-container.ts'

/** What the administrator types, with its output in files of their own. */
const STORY = `(systemctl enable --now weftd; echo "exit $?") > started 2>&1
(weftctl status; echo "exit $?") > status 2>&1
systemctl show weftd -p Type -p ActiveState -p StatusText > ready
cp /run/flannel/subnet.env .
systemctl stop weftd
echo '{"Network":"nowhere"}' > /etc/weft/net-conf.json
rm /run/weft/lease.json
systemctl start weftd --no-block
for i in $(seq 300); do
  systemctl show weftd -p ActiveState -p StatusText > waiting
  grep -q CONFIG_INVALID waiting && break
  sleep 0.1
done
systemctl stop weftd`

test('enable --now returns when pods can be served, weftctl answers at once, and a start that waits says what for', {
  skip: noSystemd,
  timeout: 300_000
}, async () => {
  await using lab = await Lab.start({ hosts: [1] })
  const [host] = lab.hosts
  assert.ok(host)
  const files = {
    '/etc/weft/net-conf.json': '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}',
    '/etc/default/weftd': 'WEFTD_STORE=embedded\nWEFTD_NET_CONFIG_PATH=/etc/weft/net-conf.json\n'
  }
  const told = await runInSystemd({ host, script: STORY, files })
  assert.match(told('started'), /exit 0\n$/)
  assert.match(told('status'), /^\S+: ready [\s\S]*exit 0\n$/)
  assert.match(told('ready'), /Type=notify\n/)
  assert.match(told('ready'), /StatusText=ready\nActiveState=active|ActiveState=active\nStatusText=ready/)
  assert.match(told('subnet.env'), /^FLANNEL_SUBNET=10\.244\./m)
  assert.match(told('waiting'), /ActiveState=activating/)
  assert.match(told('waiting'), /StatusText=waiting: CONFIG_INVALID: .*Network is "nowhere"/)
})
