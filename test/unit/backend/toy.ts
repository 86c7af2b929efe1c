// A backend that Weft does not have, as whoever adds one would write it: a device for a whole colour, one route per
// peer, and a token that no two nodes share.
import type { Backend } from '../../../daemon/backend/backend.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import type { Json, JsonObject } from '../../../daemon/config/json.ts'
import { findKey, integerKey } from '../../../daemon/config/keys.ts'
import { leaseKey } from '../../../daemon/lease/lease.ts'
import { digest } from '../../../daemon/state/digest.ts'
import type { Link } from '../../../daemon/state/object.ts'
import { ROUTE_PROTOCOL } from '../../../daemon/state/ownership.ts'
import { FAMILIES, perFamily } from '../../../ipam/address.ts'

type ToyConfig = { readonly colour: number }

const FORM = { type: 'other', of: 'toy' } as const
const OVERHEAD = 24

const tokenOf = (published: Json | undefined): string | undefined => {
  const token = published === undefined ? undefined : findKey(published as JsonObject, 'Token')?.value
  return typeof token === 'string' ? token : undefined
}

const deviceOf = (links: readonly Link[], { colour }: ToyConfig): string =>
  links.find(({ name }) => name === `oldtoy.${colour}`)?.name ?? `toy.${colour}`

export const toy: Backend<ToyConfig> = {
  type: 'toy',
  keys: { Colour: { rule: '1 to 9', default: '1', meaning: 'the colour of the whole network' } },
  config: (keys) => ({ colour: integerKey(keys, 'Colour', { default: 1, min: 1, max: 9 }) }),
  features: () => [{ kind: 'link', name: 'try-toy', form: FORM }],
  recognises: ({ name, form }) => {
    if (form !== undefined && !(form.type === 'other' && form.of === 'toy')) return undefined
    if (/^toy\.\d$/.test(name)) return 'own'
    return /^oldtoy\.\d$/.test(name) ? 'adoptable' : form && 'foreign'
  },
  claims: ({ backendData, publicIp }) =>
    perFamily(publicIp).flatMap(([family, ip]) => {
      const token = tokenOf(backendData[family])
      const by = `${ip.value}`
      return token === undefined ? [] : [{ code: 'VTEP_MAC_CONFLICT', key: token, text: `token ${token}`, by }]
    }),
  namesOurDevice: ({ backendData }, links) =>
    FAMILIES.some((family) => links.some(({ alias }) => alias !== undefined && alias === tokenOf(backendData[family]))),
  namesAnotherDevice: () => false,
  mtu: ({ deviceMtu }) => deviceMtu - OVERHEAD,
  underlayMtu: ({ deviceMtu }) => deviceMtu,
  publish: ({ publicIp, remembered, identity }) =>
    Object.fromEntries(
      perFamily(publicIp).map(([family]) => [family, { Token: tokenOf(remembered[family]) ?? digest(identity) }])
    ),
  own: ({ links, remembered }, config) => {
    const alias = tokenOf(remembered[4]) ?? ''
    return [{ kind: 'link', name: deviceOf(links, config), form: FORM, alias, up: true, because: 'our toy' }]
  },
  held: ({ ip }) => ip,
  heldByAll: true,
  peer: (lease, { links }, config) =>
    perFamily(lease.subnet).map(([family, destination]) => {
      if (tokenOf(lease.backendData[family]) === undefined)
        throw new WeftError('LEASE_MALFORMED', `lease ${leaseKey(lease)} has no Token`, 'restart its daemon')
      return {
        ...({ kind: 'route', table: 254, destination, metric: 0, type: 'unicast', protocol: ROUTE_PROTOCOL } as const),
        ...{ device: deviceOf(links, config), because: `lease ${leaseKey(lease)}` }
      }
    })
}
