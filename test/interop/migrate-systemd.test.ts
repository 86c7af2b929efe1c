// weftctl migrate where systemd runs flanneld: the unit is stopped and disabled, weftd's gets flanneld's flags by a
// drop-in, and back.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cluster } from '../lab/cluster.ts'
import { LIST } from '../lab/flannel-host.ts'
import { missingPeer, peersDirectory } from '../lab/peers.ts'
import { INSIDE, noSystemd, runInSystemd, UNITS } from '../lab/systemd-container.ts'

const skip = noSystemd || missingPeer('bin/flanneld')

/** What the administrator types, with its output in files of their own. */
const STORY = `mkdir -p /opt/cni/bin
cp ${peersDirectory()}/cni/* /opt/cni/bin
sums() { sha256sum /opt/cni/bin/* /etc/cni/net.d/10-flannel.conflist | sort; }
states() { systemctl show flanneld weftd -p Id -p ActiveState -p UnitFileState | tr '\\n' ' '; }
systemctl enable --now flanneld
for i in $(seq 300); do [ -e /run/flannel/subnet.env ] && break; sleep 0.1; done
grep FLANNEL_SUBNET /run/flannel/subnet.env > subnet-before
sums > sums-before
migrate() { (weftctl migrate $1 --cni-source-dir=${INSIDE}dist/cni --wait=60; echo "exit $?") > $1 2>&1; }
migrate plan
states > states-plan
migrate apply
states > states-apply
tr '\\0' '\\n' < /proc/$(systemctl show weftd -p MainPID --value)/environ | grep ^WEFTD_ > variables
(weftctl status; ls /etc/cni/net.d) > status 2>&1
journalctl -u weftd --no-pager | tail -n 30 > log
migrate rollback
states > states-rollback
sums > sums-after
grep FLANNEL_SUBNET /run/flannel/subnet.env > subnet-after
ls ${UNITS} /etc/weft /var/lib/cni > left 2>&1`

test('a unit flanneld.service is moved to weftd.service with its flags and back; units are enabled as before', {
  skip,
  timeout: 300_000
}, async () => {
  await using cluster = await Cluster.start({
    hosts: [1],
    start: false,
    network: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }
  })
  const flags = `--etcd-endpoints=${cluster.etcd.endpointList} --iface=eth0 --ip-masq`
  const unit = [
    '[Service]',
    `ExecStart=${peersDirectory()}/bin/flanneld ${flags}`,
    'Restart=always',
    '[Install]',
    'WantedBy=multi-user.target'
  ].join('\n')
  const files = {
    [`${UNITS}/flanneld.service`]: unit,
    '/etc/cni/list/10-flannel.conflist': LIST
  }
  const script = `mkdir -p /etc/cni/net.d; cp /etc/cni/list/* /etc/cni/net.d\n${STORY}`
  const shared = ['/etc/alternatives', peersDirectory()]
  const told = await runInSystemd({ host: cluster.node(1), script, files, shared })
  assert.match(told('plan'), /flanneld runs \(pid \d+, flanneld\.service\)[\s\S]*exit 0\n$/)
  assert.match(told('states-plan'), /Id=flanneld\.service ActiveState=active UnitFileState=enabled/)
  assert.match(told('apply'), /this node runs Weft.*\nexit 0\n$/, told('log'))
  assert.match(told('states-apply'), /Id=flanneld\.service ActiveState=inactive UnitFileState=disabled/)
  assert.match(told('states-apply'), /Id=weftd\.service ActiveState=active UnitFileState=enabled/)
  assert.match(told('variables'), /^WEFTD_IFACE=eth0$/m)
  assert.match(told('variables'), /^WEFTD_CNI_CONF_SOURCE=/m)
  assert.match(told('status'), /: ready [\s\S]*10-weft\.conflist\n$/)
  assert.match(told('rollback'), /this node runs flanneld again\nexit 0\n$/)
  assert.match(told('states-rollback'), /Id=flanneld\.service ActiveState=active UnitFileState=enabled/)
  assert.match(told('states-rollback'), /Id=weftd\.service ActiveState=inactive UnitFileState=disabled/)
  assert.equal(told('sums-after'), told('sums-before'))
  assert.equal(told('subnet-after'), told('subnet-before'))
  assert.doesNotMatch(told('left'), /weftd\.service\.d\/50|migrated\.env|weft-migrate/)
})
