// The keys of host-local: which ranges and addresses a configuration asks for, and the error that each wrong value
// gets.
import { deepEqual, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatIp, formatPrefix } from '../../../../ipam/address.ts'
import { hostLocal } from '../../../../plugins/types/host-local.ts'
import { addCall, delCall, routeText } from '../calls.ts'

const attachmentOf = (configuration: object, args = '') =>
  hostLocal.attachment(addCall('host-local', configuration, { args }))
const rangesOf = (configuration: object) =>
  attachmentOf(configuration).ipam?.ranges.map((set) => set.map(({ subnet }) => formatPrefix(subnet)))

describe('host-local', () => {
  test('asks for addresses and no interface, on any node', () => {
    const { interface: config, isStandalone, ipam } = attachmentOf({ ipam: { subnet: '10.1.0.0/24' } })
    deepEqual([config, isStandalone, ipam?.dataDir], [{ kind: 'none' }, true, '/var/lib/cni/networks'])
  })
  test("takes range sets in the reference's order: the runtime's, the single one, the listed ones", () => {
    const configuration = {
      runtimeConfig: { ipRanges: [[{ subnet: '10.3.0.0/24' }]] },
      ipam: { subnet: '10.1.0.0/24', ranges: [[{ subnet: '10.2.0.0/24' }, { subnet: '10.4.0.0/24' }]] }
    }
    deepEqual(rangesOf(configuration), [['10.3.0.0/24'], ['10.1.0.0/24'], ['10.2.0.0/24', '10.4.0.0/24']])
  })
  test('adds up what is requested, with or without a length', () => {
    const configuration = {
      ipam: { subnet: '10.1.0.0/24' },
      args: { cni: { ips: ['10.1.0.8'] } },
      runtimeConfig: { ips: ['10.1.0.9/24'] }
    }
    deepEqual(attachmentOf(configuration, 'IP=10.1.0.7').ipam?.requested.map(formatIp), [
      '10.1.0.7',
      '10.1.0.8',
      '10.1.0.9'
    ])
  })
  test('keeps the file of name servers and the routes as they are written', () => {
    const { ipam } = attachmentOf({
      ipam: { subnet: '10.1.0.0/24', resolvConf: '/etc/resolv.conf', routes: [{ dst: '0.0.0.0/0' }] }
    })
    deepEqual([ipam?.resolvConf, ipam?.routes.map(routeText)], ['/etc/resolv.conf', ['0.0.0.0/0']])
  })
  for (const [configuration, args, code, message] of [
    [{}, '', 7, /ipam/],
    [{ ipam: {} }, '', 7, /ipam\.ranges/],
    [{ ipam: { ranges: [] } }, '', 7, /ipam\.ranges/],
    [{ ipam: { ranges: [[]] } }, '', 7, /ipam\.ranges\[0\]/],
    [{ ipam: { subnet: '10.1.0.0' } }, '', 7, /ipam\.subnet: "10\.1\.0\.0"/],
    [{ ipam: { subnet: '10.1.0.0/24', rangeStart: 'x' } }, '', 7, /ipam\.rangeStart: "x"/],
    [{ ipam: { subnet: '10.1.0.0/24', dataDir: 'x' } }, '', 7, /ipam\.dataDir: "x"/],
    [{ ipam: { subnet: '10.1.0.0/24' } }, 'IP=x', 4, /IP=x/],
    [{ ipam: { subnet: '10.1.0.0/24' } }, 'OTHER=1', 4, /OTHER/]
  ] as const) {
    test(`${JSON.stringify(configuration)} with "${args}" is error ${code}`, () => {
      throws(() => attachmentOf(configuration, args), { code, message })
    })
  }
  test('DEL is served whatever became of the configuration, in its directory where that can be read', () => {
    const { ipam } = hostLocal.attachment(delCall('host-local', { ipam: { dataDir: '/d', subnet: 7 } }))
    deepEqual(ipam, { dataDir: '/d', requested: [], ranges: [], routes: [] })
  })
})
