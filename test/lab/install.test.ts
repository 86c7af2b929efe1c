// A node from its first minute to its last: plugins installed, the list written when pods can be served, and all of it
// taken away again.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { BIN, Cluster } from './cluster.ts'
import { filesIn } from './daemon-pod.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'
import { weftdCommand } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const timeout = 300_000
const patient = { deadlineMs: 30_000, everyMs: 50 }

const CONF = '/etc/cni/net.d'
const PLUGINS = '/opt/cni/bin'
const args = [`--cni-conf-dir=${CONF}`, `--cni-bin-dir=${PLUGINS}`, '--ip-masq']
const conflist = (host: Host): boolean => existsSync(host.path(`${CONF}/10-weft.conflist`))

/** `weftd WORDS…` on the host, to its end. */
function weftd(host: Host, ...words: readonly string[]) {
  const [command, ...first] = weftdCommand()
  return host.exec(command, [...first, ...words], { check: false, timeoutMs: 60_000 })
}

/** Links, routes and firewall, without what changes by itself. */
async function network(host: Host): Promise<string> {
  const { stdout } = await host.sh(
    "ip -o link | sed 's/^[0-9]*: //'; ip route show table all; ip -6 route show table all; nft -s list ruleset"
  )
  return stdout
}

async function nodeWithPlugins(host: Host): Promise<void> {
  await host.sh(`mkdir -p ${PLUGINS} && mount -t tmpfs tmpfs ${PLUGINS}`)
  const { code, stderr } = await weftd(host, 'install', `--cni-source-dir=${BIN}`)
  assert.equal(code, 0, stderr)
}

test('install puts what was built in place, twice the same, and says one line for each file', {
  skip,
  timeout
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const host = cluster.node(1)
  await nodeWithPlugins(host)
  assert.deepEqual(filesIn(host.path(PLUGINS)), [...pluginTypes].sort())
  const again = await weftd(host, 'install', `--cni-source-dir=${BIN}`)
  assert.equal(again.stdout.match(/: already the same /g)?.length, pluginTypes.length, again.stdout)
  const { stdout } = await host.exec(`${PLUGINS}/weft`, [], {
    env: { CNI_COMMAND: 'VERSION' },
    input: '{"cniVersion":"1.0.0"}'
  })
  assert.match(stdout, /supportedVersions/)
})

test('the list appears with the first lease, not before, and outlives weftd by any signal', {
  skip,
  timeout
}, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const host = cluster.node(1)
  await cluster.etcd.stop()
  const daemon = await cluster.join(host, { args, wait: false })
  await until(() => /STORE_UNREACHABLE/.test(daemon.text), { what: 'weftd to miss etcd', ...patient })
  assert.equal(conflist(host), false)
  await cluster.etcd.restart()
  await daemon.ready(60_000)
  await until(() => conflist(host), { what: 'the list', ...patient })
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await daemon.kill(signal)
    assert.ok(conflist(host), signal)
    daemon.launch()
    await daemon.ready()
  }
})

test('clean takes everything away that weftd made, and nothing else', { skip, timeout }, async () => {
  await using cluster = await Cluster.start({ hosts: [2], start: false })
  const [host, other] = [cluster.node(1), cluster.node(2)]
  await host.sh(
    // In two steps: the kernel brings a link up before it reads how its addresses are made.
    'ip link add docker0 type bridge; ip link set docker0 addrgenmode none; ip link set docker0 up; ip route add 198.51.100.0/24 dev docker0; nft add table inet theirs'
  )
  await nodeWithPlugins(host)
  await host.sh(`echo mine > ${PLUGINS}/cilium-cni; mkdir -p ${CONF}; echo {} > ${CONF}/99-other.conf`)
  const before = await network(host)
  const daemon = await cluster.join(host, { args })
  await cluster.join(other)
  // The other node loses this one once it is clean.
  cluster.announce('UNDERLAY_LOST')
  const [here, there] = [await cluster.pod(host), await cluster.pod(other)]
  assert.equal((await here.pod.ping(there.address)).received > 0, true)
  // As a container with macspoofchk leaves it.
  await host.sh('nft add table bridge weft')

  const refused = await weftd(host, 'clean')
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, new RegExp(`another weftd runs in this network namespace \\(.*pid ${daemon.pidInside}`))

  await cluster.call(host, 'DEL', here.id, here.pod.netns)
  await daemon.stop()
  await until(() => conflist(host), { what: 'the list', ...patient })
  const cleaned = await weftd(host, 'clean')
  assert.equal(cleaned.code, 0, cleaned.stderr)
  assert.match(cleaned.stderr, /this node is clean, apart from what stays: .*net\.ipv4\.ip_forward = 1/)
  assert.doesNotMatch(cleaned.stderr, /weftd starts|weftd is starting/)
  for (const path of [`${CONF}/10-weft.conflist`, `${PLUGINS}/weft`, '/run/flannel/subnet.env'])
    assert.ok(cleaned.stderr.includes(`"path":"${path}","msg":"removed"`), `${path}: ${cleaned.stderr}`)
  assert.equal(await network(host), before)
  assert.deepEqual(filesIn(host.path(CONF)), ['99-other.conf'])
  assert.deepEqual(filesIn(host.path(PLUGINS)), ['cilium-cni'])
  assert.equal(existsSync(host.path('/run/flannel/subnet.env')), false)

  const twice = await weftd(host, 'clean')
  assert.equal(twice.code, 0, twice.stderr)
  assert.equal(await network(host), before)
  await host.sh('ip link add cni0 type bridge')
  const foreign = await weftd(host, 'clean')
  assert.match(foreign.stderr, /stays: .*the bridge cni0, which weftd did not make \(ip link delete cni0\)/)
  await host.sh('ip link delete cni0')

  const [command, ...first] = weftdCommand()
  const unprivileged = ['--bounding-set=-net_admin', '--inh-caps=-net_admin', command, ...first, 'clean']
  const denied = await host.exec('setpriv', unprivileged, { check: false, timeoutMs: 60_000 })
  assert.equal(denied.code, 1)
  assert.match(denied.stderr, /"code":"NOT_PRIVILEGED".*lacks CAP_NET_ADMIN/)
  assert.doesNotMatch(denied.stderr, /"stack"/)
})

test('clean leaves a pod that still runs its interface and its neighbours on the node', { skip, timeout }, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const host = cluster.node(1)
  const daemon = await cluster.join(host, { args })
  const [one, two] = [await cluster.pod(host), await cluster.pod(host)]
  await daemon.stop()
  const { stderr } = await weftd(host, 'clean')
  assert.match(stderr, /running pods keep their interfaces/)
  assert.ok((await one.pod.ping(two.address)).received > 0)
  assert.equal((await host.exec('nft', ['list', 'table', 'inet', 'weft'], { check: false })).code, 1)
  assert.equal(existsSync(host.path(`${CONF}/10-weft.conflist`)), false)
})

test('a list whose content is followed: the file that is mounted from a ConfigMap', { skip, timeout }, async () => {
  await using cluster = await Cluster.start({ hosts: [1], start: false })
  const host = cluster.node(1)
  const flannels = {
    name: 'cbr0',
    cniVersion: '0.3.1',
    plugins: [{ type: 'flannel', delegate: { isDefaultGateway: true } }]
  }
  // As kubelet mounts it: ..data leads to a directory with a time, and is replaced by renaming.
  const mounted = (text: string, time: string) =>
    host.sh(`cd /etc/weft; mkdir ..${time}; cat > ..${time}/cni-conf.json <<'END'
${text}
END
ln -s ..${time} ..data_tmp; mv -T ..data_tmp ..data; ln -sf ..data/cni-conf.json cni-conf.json`)
  await mounted(JSON.stringify(flannels), '1')
  await cluster.join(host, { args: [...args, '--cni-conf-source=/etc/weft/cni-conf.json'] })
  const written = () => readFileSync(host.path(`${CONF}/10-weft.conflist`), 'utf8')
  await until(() => JSON.parse(written()).plugins[0].type === 'flannel', { what: "flannel's list", ...patient })
  await mounted(JSON.stringify({ ...flannels, name: 'other' }), '2')
  await until(() => JSON.parse(written()).name === 'other', { what: 'the new list', ...patient })
})
