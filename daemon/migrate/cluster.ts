// A whole cluster's move from flannel's DaemonSet: what is found in its objects, how they are changed, and the plan.
import { BACKENDS } from '../backend/registry.ts'
import type { Fault } from './plan.ts'
import { settingsFrom } from './settings.ts'

/** Nodes with this label run Weft, all others flannel. */
export const LABEL = 'weft-migrate'
export const MOVED = 'moved'
/** What flannel's DaemonSet had before, as JSON, for the way back. */
export const BEFORE = 'weft-migrate-before'

export type Json = { readonly [key: string]: unknown }
type Container = {
  readonly name: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: readonly Json[]
}
type Affinity = {
  readonly nodeAffinity?: Json & { readonly requiredDuringSchedulingIgnoredDuringExecution?: Terms }
} & Json
type Terms = { readonly nodeSelectorTerms: readonly Term[] }
type Term = Json & { readonly matchExpressions?: readonly Json[] }
type PodSpec = Json & {
  readonly containers: readonly Container[]
  readonly volumes?: readonly { readonly configMap?: { readonly name: string } }[]
  readonly affinity?: Affinity
}
export type DaemonSet = {
  readonly metadata: {
    readonly name: string
    readonly namespace: string
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly spec: { readonly updateStrategy?: Json; readonly template: { readonly spec: PodSpec } }
}

const isFlanneld = ({ command = [], args = [] }: Container): boolean =>
  [command[0], args[0]].some((word) => /(^|\/)flanneld$/.test(word ?? ''))

/** The DaemonSets that run flanneld. */
export const flannelSets = (all: readonly DaemonSet[]): readonly DaemonSet[] =>
  all.filter(({ spec }) => spec.template.spec.containers.some(isFlanneld))

/** The ConfigMaps that its pods mount: one has net-conf.json. */
export const configMapsOf = ({ spec }: DaemonSet): readonly string[] =>
  (spec.template.spec.volumes ?? []).flatMap(({ configMap }) => (configMap ? [configMap.name] : []))

const flanneldOf = ({ spec }: DaemonSet): Container | undefined => spec.template.spec.containers.find(isFlanneld)

/** Weft's deployment sets these itself. */
const OWN = new Set(['kube-subnet-mgr', 'net-config-path', 'subnet-file', 'healthz-ip', 'healthz-port', 'v'])

/** Flags for weftd from flanneld's command line. `$(NAME)` stays: its variable is taken over too. */
export function flagsFrom(set: DaemonSet): { readonly flags: readonly string[]; readonly faults: readonly string[] } {
  const { command = [], args = [] } = flanneldOf(set) ?? { name: '' }
  const words = [...command, ...args].slice(1)
  const literal = words.map((word) => word.replaceAll(/\$\([A-Za-z_]\w*\)/g, '10.0.0.1'))
  const { faults } = settingsFrom({ arguments: literal, environment: {} }, undefined)
  const flags: string[] = []
  for (let at = 0; at < words.length; at++) {
    const [, name = '', inline] = /^--?([^=]+)(=[\s\S]*)?$/.exec(words[at] ?? '') ?? []
    const next = words[at + 1]
    const hasNext = inline === undefined && next !== undefined && !next.startsWith('-')
    if (!OWN.has(name)) flags.push(`--${name}${inline ?? (hasNext ? `=${next}` : '')}`)
    if (hasNext) at++
  }
  return { flags, faults }
}

/** flannel's DaemonSet on nodes without the label only; its pods are not restarted by the change of their template. */
export function excludingPatch({ spec, metadata }: DaemonSet): Json {
  const { affinity = {} } = spec.template.spec
  const before =
    metadata.annotations?.[BEFORE] ??
    JSON.stringify({ affinity: spec.template.spec.affinity ?? null, updateStrategy: spec.updateStrategy ?? null })
  return {
    metadata: { annotations: { [BEFORE]: before } },
    spec: {
      updateStrategy: { type: 'OnDelete', rollingUpdate: null },
      template: { spec: { affinity: requiring(affinity, { key: LABEL, operator: 'NotIn', values: [MOVED] }) } }
    }
  }
}

/** `undefined`: it was not changed. */
export function restoringPatch({ metadata }: DaemonSet): Json | undefined {
  const before = metadata.annotations?.[BEFORE]
  if (before === undefined) return undefined
  const { affinity, updateStrategy } = parsed(before)
  return {
    metadata: { annotations: { [BEFORE]: null } },
    spec: {
      updateStrategy: updateStrategy ?? { type: 'RollingUpdate' },
      template: { spec: { affinity: affinity ?? null } }
    }
  }
}

/** Every term needs the expression, and once only. */
function requiring(affinity: Affinity, expression: Json): Affinity {
  const { nodeAffinity = {} } = affinity
  const terms = nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [{}]
  const isThere = ({ matchExpressions = [] }: Term) => matchExpressions.some(({ key }) => key === expression.key)
  return {
    ...affinity,
    nodeAffinity: {
      ...nodeAffinity,
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: terms.map((term) =>
          isThere(term) ? term : { ...term, matchExpressions: [...(term.matchExpressions ?? []), expression] }
        )
      }
    }
  }
}

export type KubeObject = Json & {
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
}

/**
 * The objects of deploy/ for this cluster: flannel's network configuration and list, flanneld's flags and variables, and
 * Weft's pods on nodes with the label only. Others are as they were.
 */
export function weftObjects(
  objects: readonly KubeObject[],
  set: DaemonSet,
  data: Readonly<Record<string, string>>
): readonly KubeObject[] {
  const { flags } = flagsFrom(set)
  const { env = [] } = flanneldOf(set) ?? {}
  return objects.map((object) => {
    if (object.kind === 'ConfigMap' && 'data' in object && 'net-conf.json' in (object.data as Json))
      return { ...object, data: { ...(object.data as Json), ...data } }
    if (object.kind !== 'DaemonSet') return object
    const { spec } = object as unknown as DaemonSet
    const pod = spec.template.spec
    const containers = pod.containers.map((container) =>
      container.name === 'weftd' ? withFlags(container, flags, env) : container
    )
    const affinity = requiring(pod.affinity ?? {}, { key: LABEL, operator: 'In', values: [MOVED] })
    return { ...object, spec: { ...spec, template: { ...spec.template, spec: { ...pod, containers, affinity } } } }
  })
}

/** What deploy/ turns on and flannel did not is off. */
function withFlags(container: Container, flags: readonly string[], env: readonly Json[]): Container {
  const { command = [], env: own = [] } = container
  const names = new Set(own.map(({ name }) => name))
  return {
    ...container,
    command: [...command.filter((word) => word !== '--ip-masq'), ...flags],
    env: [...own, ...env.filter(({ name }) => !names.has(name))]
  }
}

export type ClusterFacts = {
  readonly sets: readonly DaemonSet[]
  /** Of the ConfigMap with net-conf.json; absent: none was found. */
  readonly data?: Readonly<Record<string, string>>
  readonly nodes: readonly ClusterNode[]
}
export type ClusterNode = { readonly name: string; readonly isMoved: boolean; readonly hasFlannel: boolean }

type ClusterPlan = {
  readonly found: readonly string[]
  readonly steps: readonly string[]
  readonly gap: string
  readonly faults: readonly Fault[]
}

/** The nodes that `apply` moves, in this order. */
export const toMove = ({ nodes }: ClusterFacts): readonly ClusterNode[] =>
  nodes.filter(({ hasFlannel, isMoved }) => hasFlannel || isMoved)

export function clusterPlan(facts: ClusterFacts): ClusterPlan {
  const { sets, data, nodes } = facts
  const [set] = sets
  const faults: Fault[] = []
  const add = (isFault: boolean, message: string, cure: string) => void (isFault && faults.push({ message, cure }))
  add(
    set === undefined,
    'no DaemonSet runs flanneld',
    'on nodes without Kubernetes, run "weftctl migrate plan" on each'
  )
  add(sets.length > 1, `several DaemonSets run flanneld: ${sets.map(nameOf).join(', ')}`, 'remove all but one')
  add(
    set !== undefined && data === undefined,
    `no ConfigMap of ${set && nameOf(set)} has net-conf.json`,
    'correct its volumes'
  )
  if (set !== undefined)
    for (const message of flagsFrom(set).faults) add(true, message, "remove that flag from flannel's DaemonSet")
  const { type, backend } = backendIn(data?.['net-conf.json'])
  add(
    data !== undefined && backend === undefined,
    `Backend.Type is ${JSON.stringify(type)}, which this version of Weft does not have`,
    'keep flannel, or use another backend first (docs/flannel.md)'
  )
  const moved = nodes.filter(({ isMoved }) => isMoved).map(({ name }) => name)
  const left = nodes.filter(({ isMoved, hasFlannel }) => hasFlannel && !isMoved).map(({ name }) => name)
  return {
    found: [
      set === undefined ? 'no flannel' : `flannel: DaemonSet ${nameOf(set)}, backend ${type}`,
      `nodes with flannel: ${left.join(', ') || 'none'}`,
      `nodes with Weft: ${moved.join(', ') || 'none'}`
    ],
    steps: [
      `apply Weft's manifests with flannel's configuration${set ? ` and flags ${flagsFrom(set).flags.join(' ')}` : ''}, for nodes with the label ${LABEL}=${MOVED}`,
      `keep ${set ? nameOf(set) : "flannel's DaemonSet"} off nodes with that label, without a restart of its pods`,
      ...left.map(
        (name) =>
          `${name}: label it; wait until its weftd is ready and reaches all others; take over plugins, list and rules`
      )
    ],
    gap:
      backend?.flannelDevice?.outlivesFlanneld === false
        ? `on each node that is moved, less than two seconds to other nodes: the device of ${type} ends with flanneld`
        : 'none: tunnels and routes are in the kernels and outlive either daemon',
    faults
  }
}

export const nameOf = ({ metadata }: DaemonSet): string => `${metadata.namespace}/${metadata.name}`

function backendIn(text: string | undefined) {
  const found = Object.entries(parsed(text)).find(([key]) => key.toLowerCase() === 'backend')?.[1]
  const entries = Object.entries((found as Json | undefined) ?? {})
  const type = String(entries.find(([key]) => key.toLowerCase() === 'type')?.[1] ?? 'udp').toLowerCase()
  return { type, backend: BACKENDS.find((each) => each.type === type) }
}

function parsed(text: string | undefined): Json {
  try {
    return (JSON.parse(text ?? '') as Json | null) ?? {}
  } catch {
    return {}
  }
}
