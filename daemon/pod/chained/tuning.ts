// Sysctls and link settings of a container: the tuning plugin. Old link settings are kept on disk in the reference's
// format until DEL restores them.
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { contentOf, ifThere } from '../../../ipam/files.ts'
import { readFile } from '../../../ipam/read-file.ts'
import type { Attachment, Tuning } from '../../../plugins/attachment.ts'
import { announced } from '../../attachment/device.ts'
import type { InterfaceChanges } from '../../attachment/result.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { type CompileGo, type GoPattern, loadGoRegexp } from '../../base/go-regexp.ts'
import { put } from '../../state/difference.ts'
import { failureIn, type Sandbox } from '../../state/kernel.ts'
import { type KernelObject, type Key, type Link, linkNamed, parseMac } from '../../state/object.ts'
import { allSteps } from '../all-steps.ts'
import type { PodContext } from '../context.ts'
import type { Listed } from '../gc.ts'
import { openSandbox } from '../netns.ts'
import { requireAnswer, writeState } from '../state-file.ts'

/** The reference's allowlist: regular expressions in Go's syntax, one per line; each key must match one. */
const ALLOWED = '/etc/cni/tuning/allowlist.conf'

/**
 * Errors: SYSCTL_NOT_ALLOWED, INTERFACE_MISSING, STATE_UNWRITABLE, KERNEL_REFUSED. What was written before an error
 * stays: the container is deleted.
 */
export async function tune(context: PodContext, attachment: Attachment, tuning: Tuning): Promise<InterfaceChanges> {
  await refuseForbidden(tuning)
  using sandbox = await openSandbox(context, attachment)
  // Sysctls alone need no interface: they are of the whole namespace, or name one themselves.
  if (changesLink(tuning)) await keep(context, attachment, tuning, await linkIn(sandbox, attachment))
  await apply(sandbox, settingsOf(tuning, attachment.ifname, context.self.ipv6))
  const { mac, mtu } = tuning
  return { own: { ...(mac === undefined ? {} : { mac }), ...(mtu === undefined ? {} : { mtu }) } }
}

/** Errors: DIFFERENT with every setting that has changed. */
export async function checkTuning(context: PodContext, attachment: Attachment, tuning: Tuning): Promise<void> {
  using sandbox = await openSandbox(context, attachment)
  const observed = await sandbox.read(tuning.sysctls.map(({ path }) => path))
  const link = linkNamed(observed, attachment.ifname)
  const wrong = [
    ...(tuning.mac === undefined || link?.mac === tuning.mac ? [] : [`MAC address ${link?.mac}, not ${tuning.mac}`]),
    ...(tuning.mtu === undefined || link?.mtu === tuning.mtu ? [] : [`MTU ${link?.mtu}, not ${tuning.mtu}`]),
    ...MODES.flatMap((mode) =>
      tuning[mode] === undefined || link?.[mode] === tuning[mode]
        ? []
        : [`${keyOf[mode]} ${link?.[mode]}, not ${tuning[mode]}`]
    ),
    ...tuning.sysctls.flatMap(({ path, value }) => {
      const found = observed.get(`sysctl ${path}` as Key)
      const now = found?.kind === 'sysctl' ? found.value : 'nothing'
      return sameValue(now, value) ? [] : [`${path} ${now}, not ${value}`]
    })
  ]
  if (wrong.length > 0)
    throw new WeftError('DIFFERENT', `${attachment.because} has ${wrong.join('; ')}`, 'restart the pod')
}

/** The kernel separates several numbers by tabs, configurations by spaces. */
const sameValue = (a: string, b: string): boolean => a.split(/\s+/).join(' ') === b.trim().split(/\s+/).join(' ')

/** Restores the old settings if possible, and deletes their file. */
export async function restore(context: PodContext, attachment: Attachment, tuning: Tuning): Promise<void> {
  const file = fileOf(attachment, tuning)
  await requireAnswer(context.files, file)
  try {
    const kept = JSON.parse(await context.files.text(file)) as { readonly [key: string]: unknown }
    const { mac, mtu, promisc, allmulti, txQLen } = kept
    using sandbox = await openSandbox(context, attachment)
    const link = await linkIn(sandbox, attachment)
    const address = typeof mac === 'string' ? parseMac(mac) : undefined
    const old: Link = {
      kind: 'link',
      name: link.name,
      ...(address === undefined ? {} : { mac: address }),
      ...(typeof mtu === 'number' && mtu > 0 ? { mtu } : {}),
      ...(typeof promisc === 'boolean' ? { promiscuous: promisc } : {}),
      ...(typeof allmulti === 'boolean' ? { allMulticast: allmulti } : {}),
      ...(typeof txQLen === 'number' && txQLen >= 0 ? { queueLength: txQLen } : {})
    }
    await apply(sandbox, [old])
  } catch (error) {
    // No file, no namespace, no interface: the usual cases in which there is nothing to restore.
    context.log.debug({ err: error, because: attachment.because }, 'the old settings of an interface were not restored')
  }
  rmSync(file, { force: true })
}

/** Deletes the files of a network's containers that are not in `valid`; their interfaces are gone by then. */
export async function collectSettings(
  { files }: Pick<PodContext, 'files'>,
  { dataDir }: Tuning,
  network: string,
  valid: readonly Listed[]
): Promise<void> {
  await requireAnswer(files, dataDir)
  const kept = new Set(valid.map(({ containerId, ifname }) => `${containerId}_${ifname}.json`))
  const names = ifThere(dataDir, (path) => readdirSync(path)) ?? []
  const old = names.filter((name) => name.endsWith('.json') && !kept.has(name)).map((name) => join(dataDir, name))
  await allSteps(
    old.map((file) => () => {
      if (networkIn(file) === network) rmSync(file, { force: true })
    })
  )
}

/** The network whose settings a file has; the reference does not write it. */
function networkIn(file: string): unknown {
  try {
    return (JSON.parse(readFile(file).toString()) as { readonly network?: unknown }).network
  } catch {
    return undefined
  }
}

async function linkIn(sandbox: Sandbox, { ifname, sandbox: path }: Attachment): Promise<Link> {
  const link = linkNamed(await sandbox.read(), ifname)
  if (link !== undefined) return link
  throw new WeftError(
    'INTERFACE_MISSING',
    `there is no interface ${ifname} in ${path}`,
    'chain this plugin behind the one that makes the interface'
  )
}

const MODES = ['promiscuous', 'allMulticast', 'queueLength'] as const
/** The keys of the configuration, and of the reference's files. */
const keyOf = { promiscuous: 'promisc', allMulticast: 'allmulti', queueLength: 'txQLen' } as const

const modesOf = (of: Pick<Link, (typeof MODES)[number]>): Pick<Link, (typeof MODES)[number]> =>
  Object.fromEntries(MODES.flatMap((mode) => (of[mode] === undefined ? [] : [[mode, of[mode]]])))

const changesLink = (tuning: Tuning): boolean =>
  tuning.mac !== undefined || tuning.mtu !== undefined || MODES.some((mode) => tuning[mode] !== undefined)

const settingsOf = (tuning: Tuning, name: string, ipv6: boolean): readonly KernelObject[] => {
  const { sysctls, mac, mtu } = tuning
  const address = parseMac(mac ?? '')
  const link: Link = {
    kind: 'link',
    name,
    ...(address === undefined ? {} : { mac: address }),
    ...(mtu === undefined ? {} : { mtu }),
    ...modesOf(tuning)
  }
  const settings = [
    ...(address === undefined ? [] : announced(name, ipv6)),
    ...sysctls.map(({ path, value }): KernelObject => ({ kind: 'sysctl', path, value }))
  ]
  return changesLink(tuning) ? [...settings, link] : settings
}

async function apply(sandbox: Sandbox, objects: readonly KernelObject[]): Promise<void> {
  const failure = failureIn(await sandbox.apply(objects.map(put)))
  if (failure !== undefined) throw failure.error
}

async function refuseForbidden({ sysctls }: Tuning): Promise<void> {
  const allowed = sysctls.length === 0 ? undefined : await allowedKeys()
  if (allowed === undefined) return
  for (const { path } of sysctls) {
    const key = path.replaceAll('/', '.')
    if (allowed.some((pattern) => pattern.test(key))) continue
    throw new WeftError(
      'SYSCTL_NOT_ALLOWED',
      `sysctl ${key} is not allowed on this node`,
      `remove it from the network configuration, or add a line that matches it to ${ALLOWED}`
    )
  }
}

/** `undefined`: this node has no allowlist, and all keys are allowed. One that can't be read allows none. */
async function allowedKeys(): Promise<readonly GoPattern[] | undefined> {
  try {
    const lines = contentOf(ALLOWED)?.split('\n')
    if (lines === undefined) return undefined
    const compile = await loadGoRegexp()
    return lines
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .map((line) => patternIn(line, compile))
  } catch (cause) {
    throw new WeftError(
      'SYSCTL_NOT_ALLOWED',
      `the allowlist of sysctls ${ALLOWED} can't be read: ${reasonOf(cause)}`,
      'make it a readable file of regular expressions, one per line, or delete it to allow all',
      { cause }
    )
  }
}

function patternIn(line: string, compile: CompileGo): GoPattern {
  try {
    return compile(line)
  } catch (cause) {
    throw new Error(`Invalid regular expression ${line}: ${reasonOf(cause)}`, { cause })
  }
}

const fileOf = ({ containerId, ifname }: Attachment, { dataDir }: Tuning): string =>
  join(dataDir, `${containerId}_${ifname}.json`)

async function keep({ files }: PodContext, attachment: Attachment, tuning: Tuning, link: Link): Promise<void> {
  const { mac, mtu } = link
  const file = fileOf(attachment, tuning)
  const old = {
    network: attachment.network,
    ...(tuning.mac === undefined || mac === undefined ? {} : { mac }),
    ...(tuning.mtu === undefined || mtu === undefined ? {} : { mtu }),
    ...Object.fromEntries(MODES.flatMap((mode) => (tuning[mode] === undefined ? [] : [[keyOf[mode], link[mode]]])))
  }
  await requireAnswer(files, tuning.dataDir)
  writeState(file, JSON.stringify(old))
}
