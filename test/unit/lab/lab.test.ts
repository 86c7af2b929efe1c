// The lab's pure parts: names, addresses, ping's account, log and metrics lines, CNI chains, Docker's options.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { steps, variables } from '../../lab/cni.ts'
import { dockerNetworkOptions } from '../../lab/dockerd.ts'
import { hostAddresses, labName, labOwner, segmentAddresses, startTicksOf, stateAndParentOf } from '../../lab/names.ts'
import { account, answerOf, sentOf } from '../../lab/ping.ts'
import { run, until } from '../../lab/run.ts'
import { logLines, sample } from '../../lab/weftd.ts'

test('a lab name tells its owner, and other names tell none', () => {
  const owner = { pid: 4711, startTicks: 123456 }
  assert.deepEqual(labOwner(labName(owner, 3)), owner)
  for (const name of ['weft', 'weft-1-2', 'weft-1-2-3-4', 'weft-a-2-3', 'xweft-1-2-3', 'weft-0-2-3'])
    assert.equal(labOwner(name), undefined, name)
})

test('state, parent and start time are read past a command with blanks and brackets', () => {
  const stat = '42 (a ) b (c)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99887 1 2'
  assert.deepEqual(stateAndParentOf(stat), { state: 'S', parent: 7 })
  assert.equal(startTicksOf(stat), 99887)
  assert.throws(() => startTicksOf('42 (x) S 7'), /no start time/)
})

test('segments and hosts have addresses of their own', () => {
  assert.equal(segmentAddresses(1).v4.gateway, '192.168.11.1')
  assert.deepEqual(hostAddresses(0, 0), { v4: '192.168.10.11', v6: 'fd00:10::11' })
  assert.deepEqual(hostAddresses(2, 5), { v4: '192.168.12.16', v6: 'fd00:12::16' })
  assert.throws(() => segmentAddresses(90), /segment 90/)
  assert.throws(() => hostAddresses(0, 241), /host 241/)
})

const closing = (sent: number) =>
  `\n--- 10.0.0.1 ping statistics ---\n${sent} packets transmitted, 3 received, 25% packet loss, time 15ms\n`
const answer = (sequence: number, more = '') =>
  `64 bytes from 10.0.0.1: icmp_seq=${sequence} ttl=64 time=0.043 ms${more}\n`

test('lines of ping are distinguished, in both families', () => {
  assert.deepEqual(answerOf(answer(7)), { sequence: 7, duplicate: false, rttMs: 0.043 })
  assert.deepEqual(answerOf('64 bytes from fd00:10::11: icmp_seq=2 ttl=63 time=1.5 ms (DUP!)'), {
    sequence: 2,
    duplicate: true,
    rttMs: 1.5
  })
  assert.equal(answerOf('From 192.168.10.11 icmp_seq=4 Destination Host Unreachable'), undefined)
  assert.equal(sentOf(closing(4)), 4)
  assert.equal(sentOf('ping: connect: Network is unreachable'), undefined)
})

test('an account names the lost packets, the longest gap and duplicates', () => {
  const text = answer(1) + answer(4) + answer(4, ' (DUP!)') + answer(6) + closing(6)
  assert.deepEqual(account(text), { sent: 6, received: 3, lost: [2, 3, 5], duplicates: 1, longestGapMs: 10 })
})

test('only the very last packet may be on its way when ping is stopped', () => {
  assert.deepEqual(account(answer(1) + answer(2) + closing(3)).lost, [])
  assert.deepEqual(account(answer(1) + answer(2) + closing(4)).lost, [3])
  assert.throws(() => account('ping: unknown host'), /did not say how much/)
})

test('log lines are read among other output and a half-written last line', () => {
  const text = 'Warning: x\n{"level":30,"time":1,"msg":"route added","lease":"a"}\nError: at\n{"level":50,"time":2,"ms'
  assert.deepEqual(
    logLines(text).map(({ msg }) => msg),
    ['route added']
  )
})

test('a sample is found by its whole name', () => {
  const text = '# TYPE weft_a_total counter\nweft_a_total{x="1"} 3\nweft_a_total_more 9\nweft_a_total 2 1700000000\n'
  assert.equal(sample(text, 'weft_a_total'), 2)
  assert.equal(sample(text, 'weft_a_total{x="1"}'), 3)
  assert.equal(sample(text, 'weft_b'), undefined)
})

const list = {
  cniVersion: '1.0.0',
  name: 'net',
  plugins: [{ type: 'weft', x: 1, capabilities: { portMappings: true, bandwidth: false } }, { type: 'tuning' }]
}

test('each plugin of a list gets name, version and the capabilities it declared; DEL runs in reverse', () => {
  const capabilities = { portMappings: [{ hostPort: 80 }], bandwidth: {}, dns: {} }
  const [first, second] = steps({ verb: 'ADD', config: list, capabilities })
  assert.deepEqual(first, {
    type: 'weft',
    x: 1,
    cniVersion: '1.0.0',
    name: 'net',
    runtimeConfig: { portMappings: [{ hostPort: 80 }] }
  })
  assert.deepEqual(second, { type: 'tuning', cniVersion: '1.0.0', name: 'net' })
  assert.deepEqual(
    steps({ verb: 'DEL', config: list }).map(({ type }) => type),
    ['tuning', 'weft']
  )
  assert.deepEqual(steps({ verb: 'ADD', config: { type: 'weft', name: 'n' } }), [{ type: 'weft', name: 'n' }])
})

test('a call has all six variables', () => {
  assert.deepEqual(variables({ verb: 'VERSION', config: {}, binDir: '/opt/cni/bin' }), {
    CNI_COMMAND: 'VERSION',
    CNI_CONTAINERID: '',
    CNI_NETNS: '',
    CNI_IFNAME: 'eth0',
    CNI_ARGS: '',
    CNI_PATH: '/opt/cni/bin'
  })
})

test("Docker's options follow subnet.env, and a file without a subnet is refused", () => {
  const text = 'FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.5.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n'
  assert.deepEqual(dockerNetworkOptions(text), ['--bip=10.2.5.1/24', '--mtu=1450', '--ip-masq=false'])
  assert.throws(() => dockerNetworkOptions('FLANNEL_MTU=1450\n'), /FLANNEL_SUBNET/)
})

test('until takes an empty list for "not yet"', async () => {
  let calls = 0
  assert.deepEqual(await until(() => (++calls > 2 ? ['drop'] : []), { what: 'rain', everyMs: 1 }), ['drop'])
})

test('until tells what it waited for and what it saw last', async () => {
  await assert.rejects(
    until(() => false, { what: 'rain', deadlineMs: 0 }),
    /in vain for rain; seen last: false/
  )
  const failing = () => {
    throw new Error('dry')
  }
  await assert.rejects(until(failing, { what: 'rain', deadlineMs: 0 }), /seen last: dry/)
  let calls = 0
  assert.equal(await until(() => (++calls > 2 ? 'wet' : undefined), { what: 'rain', everyMs: 1 }), 'wet')
})

test('a program that fails is reported with its command line and output, and one that hangs is killed', async () => {
  await assert.rejects(run('sh', ['-c', 'echo broken >&2; exit 3']), /sh -c echo broken.*: ended with 3\nbroken/s)
  assert.equal((await run('sh', ['-c', 'exit 3'], { check: false })).code, 3)
  assert.equal((await run('cat', [], { input: 'text' })).stdout, 'text')
  await assert.rejects(run('sleep', ['1000'], { timeoutMs: 50 }), /killed after 50 ms/)
  await assert.rejects(run('/nonexistent/program', []), /cannot run \/nonexistent\/program/)
})
