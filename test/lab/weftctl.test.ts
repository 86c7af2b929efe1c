// weftctl on real nodes: nodes, pods, why and diff, reasons for failures, and access by root only.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { describedMetrics } from '../../scripts/docs/metrics.ts'
import { BIN, Cluster, PREFIX, type Resident } from './cluster.ts'
import { cni } from './cni.ts'
import { run, until } from './run.ts'
import { weftctl, weftctlCommand } from './weftctl.ts'
import { weftdCommand } from './weftd.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'

const columnsOf = (stdout: string) => stdout.split('\n').map((line) => line.split(/ {2,}/))
const withPorts = (hostPort: number) => ({
  runtimeConfig: {
    portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp' }],
    bandwidth: { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 4_000_000, egressBurst: 800_000 }
  }
})

describe('weftctl on a node of three, one of them behind a router', { skip }, () => {
  let cluster: Cluster
  let pod: Resident
  before(async () => {
    cluster = await Cluster.start({ hosts: [2, 1] })
    pod = await cluster.pod(cluster.node(1), withPorts(8080))
  })
  after(() => cluster[Symbol.asyncDispose]())

  test('nodes has a row for each lease, with the way there that the kernel has too', async () => {
    const [here, near, far] = cluster.nodes
    assert.ok(here && near && far)
    await until(async () => (await weftctl(here, ['nodes'])).code === 0, { what: 'all nodes' })
    const { stdout } = await weftctl(here, ['nodes'])
    const rows = columnsOf(stdout).filter(([, subnet]) => subnet?.startsWith('10.244.'))
    const reached = Object.fromEntries(rows.map(([, , ip = '', , how]) => [ip, how]))
    assert.deepEqual(reached, {
      [here.address]: 'this-node',
      [near.address]: 'direct:eth0',
      [far.address]: 'vxlan:weft.1'
    })
    const { leases } = JSON.parse((await weftctl(here, ['nodes', '--json'])).stdout)
    for (const { subnet, reach, isOwn } of leases) {
      if (isOwn) continue
      const [route] = (await here.ip('route', 'show', subnet[0])) as readonly { readonly dev: string }[]
      assert.equal(route?.dev, reach[0].device)
    }
  })

  test('why node, by an address of a pod there, lists what the kernel has because of its lease', async () => {
    const far = await cluster.pod(cluster.node(3))
    const { code, stdout } = await weftctl(cluster.node(1), ['why', 'node', far.address])
    assert.match(stdout, /: programmed\n/)
    assert.match(stdout, /in the kernel because of it, 3 of 3:\n( {4}(neigh|fdb|route) .*\n){3}/)
    assert.equal(code, 0)
  })

  test('pods and why pod tell what an ADD has made, also after weftd was restarted', async () => {
    const here = cluster.node(1)
    const row = async () => {
      const { pods } = JSON.parse((await weftctl(here, ['pods', '--json'])).stdout)
      return pods.find(({ container }: { readonly container: string }) => container === pod.id)
    }
    const listed = await row()
    assert.deepEqual(
      [listed.pod, listed.addresses, listed.interface, listed.netns],
      [`lab/${pod.id}`, [pod.address], 'eth0', 'alive']
    )
    assert.deepEqual(listed.hostPorts, [{ protocol: 'tcp', hostPort: 8080, containerPort: 80 }])
    assert.deepEqual(listed.bandwidth, { ingress: 8_000_000, egress: 4_000_000 })
    assert.ok((await here.ip('link', 'show', 'dev', listed.link)).length === 1)
    const before = await weftctl(here, ['why', 'pod', `lab/${pod.id}`])
    assert.match(before.stdout, /: is set up\n[\s\S]*\n {4}link veth[\s\S]*ADD eth0 by weft, .* ms: ok\n/)
    assert.equal(before.code, 0)

    await cluster.daemon(1).restart()
    const again = await row()
    // What is read off the kernel names the family of the port, which the wish had left open.
    assert.deepEqual({ ...again, hostPorts: [] }, { ...listed, hostPorts: [] })
    assert.deepEqual(again.hostPorts, [{ ...listed.hostPorts[0], hostIp: '0.0.0.0' }])
    const { code, stdout } = await weftctl(here, ['why', 'pod', `lab/${pod.id}`])
    assert.match(stdout, /: is set up\n/)
    assert.equal(code, 0, stdout)
  })

  test('pods and why pod tell of host ports and limits that plugins behind weft keep', async () => {
    const here = cluster.node(2)
    const sandbox = await here.pod('chained')
    const capabilities = { portMappings: [{ hostPort: 9090, containerPort: 90, protocol: 'udp' }] }
    const limits = { ingressRate: 8_000_000, ingressBurst: 800_000 }
    const plugins = [
      { type: 'weft' },
      { type: 'portmap', capabilities: { portMappings: true } },
      { type: 'bandwidth', ...limits }
    ]
    await cni(here, {
      ...{ verb: 'ADD', config: { cniVersion: '1.0.0', name: 'chain', plugins }, binDir: BIN, capabilities },
      ...{
        containerId: 'chained',
        netns: sandbox.netns,
        args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=chained'
      }
    })
    const { pods } = JSON.parse((await weftctl(here, ['pods', '--json'])).stdout)
    const [listed] = pods.filter(({ pod: name }: { readonly pod: string }) => name === 'lab/chained')
    assert.deepEqual(listed.hostPorts, [{ protocol: 'udp', hostPort: 9090, containerPort: 90 }])
    assert.deepEqual(listed.bandwidth, { ingress: 8_000_000 })
    const { code, stdout } = await weftctl(here, ['why', 'pod', 'lab/chained'])
    assert.match(stdout, /^ {4}element inet weft host_ports_4 .*udp \. 9090/m)
    assert.match(stdout, /^ {4}qdisc dev veth.* tbf rate 8000000bit/m)
    assert.match(stdout, /ADD eth0 by bandwidth, .*: ok\n.*ADD eth0 by portmap, .*: ok\n.*ADD eth0 by weft, .*: ok\n/)
    assert.equal(code, 0, stdout)
  })

  test('a pod that was refused: the sentence of the CNI error is what why pod tells, and still after its DEL', async () => {
    const here = cluster.node(1)
    const id = 'refused'
    const sandbox = await here.pod(id)
    const { error } = await cluster.call(here, 'ADD', id, sandbox.netns, withPorts(8080), { check: false })
    assert.match(error?.msg ?? '', /^host port 8080\/tcp.* is taken by pod lab\/.*\. Cure: /)
    await cluster.call(here, 'DEL', id, sandbox.netns, withPorts(8080))
    const { code, stdout } = await weftctl(here, ['why', 'pod', `lab/${id}`])
    assert.equal(code, 1)
    assert.match(stdout, /^lab\/refused: could not be set up\n/)
    assert.ok(stdout.includes(`  ${error?.msg}\n`), stdout)
    assert.match(stdout, /DEL eth0 by weft, .*: ok\n/)
  })

  test('a lease that nobody can read is a row of nodes with the reason', async () => {
    await cluster.etcd.put(`${PREFIX}/subnets/10.244.231.0-24`, '{"PublicIP":"not an address"}')
    const here = cluster.node(1)
    await until(async () => (await weftctl(here, ['nodes'])).stdout.includes('10.244.231.0-24'), {
      what: 'the row'
    })
    const { code, stdout } = await weftctl(here, ['why', 'node', '10.244.231.0-24'])
    assert.match(stdout, /skipped: .*PublicIP is "not an address"; it must be an IPv4 address/)
    assert.equal(code, 1)
  })

  test('diff is empty while all is well, and each command is JSON with --json', async () => {
    const here = cluster.node(2)
    await until(async () => (await weftctl(here, ['diff'])).code === 0, { what: 'nothing to do' })
    for (const words of [['status'], ['nodes'], ['pods'], ['diff'], ['why', 'pod', 'x'], ['why', 'node', 'x']])
      assert.equal(typeof JSON.parse((await weftctl(here, [...words, '--json'])).stdout), 'object', words.join(' '))
  })

  test('every metric of a running weftd is described, with its type, help and labels', async () => {
    const text = await cluster.daemon(1).metrics()
    const described = new Map(describedMetrics().map((metric) => [metric.name, metric]))
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)]
    assert.ok(types.length > 10)
    for (const [, name = '', type] of types) {
      const metric = described.get(name)
      assert.equal(metric?.type, type, name)
      assert.ok(text.includes(`# HELP ${name} ${metric?.help}\n`), `${name}: ${metric?.help}`)
      const series = text.split('\n').find((line) => new RegExp(`^${name}(_bucket|_sum|_count)?\\{`).test(line))
      const labels = [...(series ?? '').matchAll(/[{,](\w+)="/g)]
        .map(([, label]) => label)
        .filter((label) => label !== 'le')
      if (series !== undefined) assert.deepEqual(labels.toSorted(), metric?.labels.toSorted(), name)
    }
  })

  test('who is not root is told so; a weftd that does not run is reported, with its cure', async () => {
    const here = cluster.node(1)
    const denied = await weftctl(here, ['status'], { as: 65_534 })
    assert.deepEqual([denied.code, denied.stdout], [3, ''])
    assert.match(denied.stderr, /weftd\.sock: .*EACCES.*\ncure: run weftctl as root \(sudo\)\n/)
    const absent = await weftctl(here, ['status', '--socket=/run/weft/none.sock'])
    assert.equal(absent.code, 3)
    assert.match(absent.stderr, /does not answer on \/run\/weft\/none\.sock: .*ENOENT.*\ncure: start weftd /)
    await cluster.daemon(1).stop()
    const stopped = await weftctl(here, ['status'])
    assert.equal(stopped.code, 3)
    assert.match(stopped.stderr, /cure: start weftd \(systemctl status weftd;/)
  })
})

test("the single file is weftctl also under the name of kubectl's plugin", {
  skip: process.env.WEFT_LAB_BIN ? skip : 'of the single file: WEFT_LAB_BIN is not set'
}, async () => {
  for (const name of ['weftctl', 'kubectl-weft']) {
    const [program, ...words] = weftctlCommand(name)
    assert.match((await run(program, [...words, '--version'])).stdout, /^weftctl \d/)
  }
  assert.match((await run(weftdCommand()[0], ['--version'])).stdout, /^weftd \d/)
})
