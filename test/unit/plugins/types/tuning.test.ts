// The keys of tuning: which settings a configuration asks for, and the error that each wrong value gets.
import { deepEqual, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Existing } from '../../../../plugins/attachment.ts'
import { tuning } from '../../../../plugins/types/tuning.ts'
import { addCall, delCall } from '../calls.ts'

const of = (configuration: object, args = '') =>
  (tuning.attachment(addCall('tuning', configuration, { args })).interface as Existing).tuning

describe('tuning', () => {
  test('without keys asks for nothing', () => deepEqual(of({}), { sysctls: [], dataDir: '/run/cni/tuning' }))
  test("sysctl keys become paths, with the interface's name where IFNAME stands", () => {
    const sysctl = { 'net.ipv4.conf.IFNAME.arp_filter': '1', 'net/ipv4/conf/a.b/forwarding': '0' }
    deepEqual(of({ sysctl })?.sysctls, [
      { path: 'net/ipv4/conf/eth0/arp_filter', value: '1' },
      { path: 'net/ipv4/conf/a.b/forwarding', value: '0' }
    ])
  })
  test('args.cni counts more than the runtime, that more than CNI_ARGS, those more than what is written', () => {
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((digit) => `02:00:00:00:00:0${digit}`)
    const written = { mac: a }
    const runtimeConfig = { mac: c }
    deepEqual(
      [
        of(written)?.mac,
        of(written, `MAC=${b}`)?.mac,
        of({ ...written, runtimeConfig }, `MAC=${b}`)?.mac,
        of({ ...written, runtimeConfig, args: { cni: { mac: d, mtu: 1300 } }, mtu: 1400 })?.mtu
      ],
      [a, b, c, 1300]
    )
  })
  test('modes and the queue are read, from args.cni first', () => {
    const keys = { promisc: true, allmulti: true, txQLen: 500, args: { cni: { allmulti: false, txQLen: 0 } } }
    deepEqual(of(keys), {
      ...{ sysctls: [], dataDir: '/run/cni/tuning' },
      ...{ promiscuous: true, allMulticast: false, queueLength: 0 }
    })
    deepEqual(of({ promisc: false }), of({}))
  })
  test('a sysctl of args.cni replaces the one that is written, whatever its spelling', () => {
    const keys = { sysctl: { 'net.core.a': '1', 'net.core.b': '2' }, args: { cni: { sysctl: { 'net/core/a': '3' } } } }
    deepEqual(of(keys)?.sysctls, [
      { path: 'net/core/b', value: '2' },
      { path: 'net/core/a', value: '3' }
    ])
  })
  test('the same key twice, which JSON.parse does not show, is refused', () => {
    for (const [input, name] of [
      ['{"sysctl":{"net.core.a":"1","x":{"net.core.a":"2"},"net.core.a":"1"}}', 'net.core.a'],
      ['{"SysCtl":{"net.core.\\u0061":"1","net.core.a":"2"}}', 'net.core.a'],
      ['{"a":[[{"sysctl":{"net.x":"","net.x":""}}]],"args":{"cni":{"sysctl":{"net.b":"\\"{","net.b":""}}}}', 'net.b']
    ] as const)
      throws(() => tuning.attachment({ ...addCall('tuning', {}), input }), { code: 7, message: new RegExp(name) })
    const fine = '{"a":{"net.x":1,"net.x":2},"sysctl":{"net.x":"net.x","net.y":"net.x"}}'
    deepEqual((tuning.attachment({ ...addCall('tuning', {}), input: fine }).interface as Existing).tuning, of({}))
  })
  for (const [configuration, code, message] of [
    [{ sysctl: { 'kernel.panic': '1' } }, 7, /kernel\.panic/],
    [{ sysctl: { 'net.x': 1 } }, 7, /net\.x/],
    [{ sysctl: { 'net.ipv4.a': '1', 'net/ipv4/a': '1' } }, 7, /net\/ipv4\/a/],
    [{ sysctl: { 'net/../x': '1' } }, 7, /net\/\.\.\/x/],
    [{ sysctl: [] }, 7, /sysctl/],
    [{ mtu: 3 }, 7, /mtu: 3/],
    [{ dataDir: 'x' }, 7, /dataDir/],
    [{ promisc: 1 }, 7, /promisc: 1/],
    [{ args: { cni: { allmulti: 'on' } } }, 7, /allmulti: "on"/],
    [{ txQLen: -1 }, 7, /txQLen: -1/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error ${code}`, () => throws(() => of(configuration), { code, message }))
  }
  test('DEL is served whatever became of the configuration', () => {
    const { interface: config } = tuning.attachment(delCall('tuning', { sysctl: 7, dataDir: '/d' }))
    deepEqual(config, { kind: 'existing', tuning: { sysctls: [], dataDir: '/d' } })
  })
})
