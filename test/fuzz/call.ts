// CNI calls as runtimes make them, with every key that a plugin of ours has, and the same calls spoiled.
import { keys, NETWORKS } from './keys.ts'
import type { Random } from './random.ts'
import { ODD_TEXTS, PROTOTYPE_KEYS, recased, spoiledJson, spoiledText, type Tree, treeOf } from './tree.ts'

/** An environment and what stands on standard input. */
export type Spoken = { readonly env: Readonly<Record<string, string>>; readonly stdin: string }

export const VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const
export const VERBS = ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION'] as const

export type Places = {
  /** Paths for CNI_NETNS. */
  readonly namespaces: readonly string[]
  readonly containerIds: readonly string[]
}

export const NOWHERE: Places = {
  namespaces: ['/run/netns/fuzz-none', '/dev/null', '/proc/self/ns/mnt', 'relative', '/run/netns/fuzz\u0000x'],
  containerIds: ['fuzz-c1', 'fuzz-c2', `f${'0'.repeat(63)}`]
}

/** A configuration that uses a random half of all the keys there are, with values that are right. */
export function configuration(random: Random, plugin: string): Readonly<Record<string, unknown>> {
  const version = random.pick(VERSIONS)
  const optional = Object.entries(keys(random, version)).filter(() => random.chance(0.4))
  return Object.fromEntries([['cniVersion', version], ['name', random.pick(NETWORKS)], ['type', plugin], ...optional])
}

export function environment(random: Random, places: Places = NOWHERE): Readonly<Record<string, string>> {
  return {
    CNI_COMMAND: random.pick(VERBS),
    CNI_CONTAINERID: random.pick(places.containerIds),
    CNI_NETNS: random.pick(places.namespaces),
    CNI_IFNAME: random.pick(['eth0', 'eth1', 'a', 'fifteen-bytes-x']),
    CNI_ARGS: random.pick([
      '',
      'IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b',
      'IP=10.77.0.9',
      'IgnoreUnknown=true;MAC=0a:58:0a:4d:00:09'
    ]),
    CNI_PATH: random.pick(['', '/opt/cni/bin', ':/nowhere:'])
  }
}

function spoiledEnvironment(
  random: Random,
  env: Readonly<Record<string, string>>,
  accept: (name: string, value: string) => boolean
): Readonly<Record<string, string>> {
  const changed: [string, string][] = Object.entries(env)
  for (let times = random.between(1, 3); times > 0; times--) {
    const at = random.below(changed.length)
    const [name = '', value = ''] = changed[at] ?? []
    const odd: readonly [string, string] = [
      [name, ''],
      [name, random.pick(ODD_TEXTS)],
      [name, spoiledText(random, value)],
      [recased(random, name), value],
      [name, recased(random, value)],
      [random.pick(PROTOTYPE_KEYS), value],
      ['TRACEPARENT', random.pick(ODD_TEXTS)],
      ['CNI_NETNS_OVERRIDE', random.pick(['', '0', 'false', 'no'])]
    ][random.below(8)] as [string, string]
    if (accept(odd[0], odd[1])) changed[at] = [odd[0], odd[1]]
  }
  return Object.fromEntries(changed)
}

/** What `accept` refuses of a spoiled environment stays as it was. */
export type Limits = { readonly places?: Places; readonly accept?: (name: string, value: string) => boolean }

/** A call with something wrong in it: mostly in the configuration, often in the environment, seldom nothing. */
export function hostileCall(random: Random, plugin: string, limits: Limits = {}): Spoken {
  const { places = NOWHERE, accept = () => true } = limits
  const tree: Tree = treeOf(configuration(random, plugin))
  const env = environment(random, places)
  return {
    env: random.chance(0.4) ? spoiledEnvironment(random, env, accept) : env,
    stdin: random.chance(0.85) ? spoiledJson(random, tree) : JSON.stringify(configuration(random, plugin))
  }
}
