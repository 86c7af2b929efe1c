// The `flannel` plugin: makes the configuration of another plugin, by default `bridge`, from subnet.env (flannel.md 8).
import { formatPrefix, perFamily } from '../../ipam/address.ts'
import {
  descend,
  entries,
  type Field,
  FieldError,
  isAbsent,
  isObject,
  type JsonObject,
  member,
  text
} from '../cni/field.ts'
import type { Call } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { configured } from '../keys/readers.ts'
import type { ForwardingPlugin, SubnetFacts } from './plugin.ts'

type ConfiguredCall = Exclude<Call, { readonly verb: 'VERSION' }>

const rootOf = (call: ConfiguredCall): Field => ({ path: '', value: call.configuration })

const absolute = (field: Field, otherwise: string): string => {
  const path = text(field) || otherwise
  if (!path.startsWith('/')) throw new FieldError(field, 'must be an absolute path')
  return path
}

const files: ForwardingPlugin['files'] = (call) =>
  configured(() => ({
    subnetFile: absolute(member(rootOf(call), 'subnetFile'), '/run/flannel/subnet.env'),
    stateDirectory: absolute(member(rootOf(call), 'dataDir'), '/var/lib/cni/flannel')
  }))

/** Members of `delegate` win; the ranges are this node's, and a route to each of the cluster's networks is added. */
function forward(call: ConfiguredCall, facts: SubnetFacts): JsonObject {
  return configured(() => {
    const root = rootOf(call)
    const delegate = objectIn(member(root, 'delegate'))
    for (const key of ['name', 'ipam']) {
      const field = descend(root, 'delegate', key)
      if (!isAbsent(field)) throw new FieldError(field, 'must not be given: the flannel plugin sets it')
    }
    const type = text(descend(root, 'delegate', 'type')) || 'bridge'
    const own = (key: string, value: unknown) =>
      value === undefined || !isAbsent(descend(root, 'delegate', key)) ? {} : { [key]: value }
    const runtimeConfig = member(root, 'runtimeConfig').value
    return {
      ...delegate,
      type,
      name: call.network,
      cniVersion: call.version,
      ...own('ipMasq', facts.ipMasq === undefined ? undefined : !facts.ipMasq),
      ...own('mtu', facts.mtu),
      ...(type === 'bridge' ? own('isGateway', true) : {}),
      ...(runtimeConfig === undefined ? {} : { runtimeConfig }),
      ipam: ipamOf(member(root, 'ipam'), facts)
    }
  })
}

function ipamOf(field: Field, facts: SubnetFacts): JsonObject {
  const routes = entries(member(field, 'routes')).map(({ value }) => value)
  return {
    ...objectIn(field),
    type: text(member(field, 'type')) || 'host-local',
    ranges: perFamily(facts.subnet).map(([, subnet]) => [{ subnet: formatPrefix(subnet) }]),
    routes: [...routes, ...perFamily(facts.network).map(([, network]) => ({ dst: formatPrefix(network) }))]
  }
}

function objectIn(field: Field): JsonObject {
  if (isAbsent(field)) return {}
  if (!isObject(field.value)) throw new FieldError(field, 'must be an object')
  return field.value
}

export const flannel = {
  type: 'flannel',
  about: "connects a container as flannel's configuration says, by another plugin",
  versions: supportedVersions,
  files,
  forward
} satisfies ForwardingPlugin
