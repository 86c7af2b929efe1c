// Calls of the flannel plugin: turned into another plugin's call with the values of subnet.env; that configuration is
// kept for its DEL.
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { codeOf, ifThere } from '../../ipam/files.ts'
import { type FileReader, isForGood, LARGE_FILE } from '../../ipam/read-file.ts'
import { FieldError, isObject, type JsonObject, member, text } from '../../plugins/cni/field.ts'
import { inVersionOf } from '../../plugins/cni/result.ts'
import type { Call, NetworkCall } from '../../plugins/cni/types.ts'
import type { ForwardingPlugin, SubnetFacts } from '../../plugins/types/plugin.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { parseSubnetEnv } from '../config/subnet-env.ts'
import { allSteps } from '../pod/all-steps.ts'
import { requireAnswer, writeState } from '../pod/state-file.ts'
import { bothParts, type Delegates, RunRequested } from './delegates.ts'
import { validAttachments } from './valid-attachments.ts'

export type Printed = { readonly stdout?: string; readonly stderr?: string }
export type ConfiguredCall = Exclude<Call, { readonly verb: 'VERSION' }>

/** Serves a call by a built-in plugin; `undefined`: there is none of this type. */
type Serve = (call: ConfiguredCall, delegates: Delegates) => Promise<Printed> | undefined
type Files = Pick<FileReader, 'text' | 'answers'>
export type Forwarding = { readonly files: Files; readonly serve: Serve }

/**
 * Keeps state with the path and format of flannel's own plugin, so that either can remove what the other set up.
 * Errors: WeftError; the other plugin's.
 */
export async function forwarded(
  { files, serve }: Forwarding,
  plugin: ForwardingPlugin,
  call: ConfiguredCall,
  delegates: Delegates
): Promise<Printed> {
  const { subnetFile, stateDirectory } = plugin.files(call)
  const fromNode = async () => plugin.forward(call, await subnetFacts(files, subnetFile))
  if (!('containerId' in call)) {
    if (call.verb === 'STATUS') return await pass(call, await fromNode(), delegates, serve)
    // The same once more after the program that is to be run has been run.
    return await bothParts(
      () => removeOthers(files, stateDirectory, call),
      async () => pass(call, await orMinimal(fromNode, plugin, call), delegates, serve)
    )
  }
  const state = join(stateDirectory, call.containerId)
  await requireAnswer(files, state)
  if (call.verb === 'ADD') {
    const configuration = await fromNode()
    // Synced, as flannel's plugin does: without it the address could not be freed after a crash.
    writeState(state, JSON.stringify(configuration), { sync: true })
    try {
      return await pass(call, configuration, delegates, serve)
    } catch (error) {
      if (!(error instanceof RunRequested)) rmSync(state, { force: true })
      throw error
    }
  }
  const configuration = (await kept(files, state, call.network)) ?? (await orMinimal(fromNode, plugin, call))
  const printed = await pass(call, configuration, delegates, serve)
  if (call.verb === 'DEL') rmSync(state, { force: true })
  return printed
}

/** DEL and GC need only the network's name, and must not depend on a file that may be gone. */
async function orMinimal(
  fromNode: () => Promise<JsonObject>,
  plugin: ForwardingPlugin,
  call: ConfiguredCall
): Promise<JsonObject> {
  try {
    return await fromNode()
  } catch (error) {
    if (!(error instanceof WeftError) || (call.verb !== 'DEL' && call.verb !== 'GC')) throw error
    return plugin.forward(call, { network: {}, subnet: {} })
  }
}

async function pass(
  call: ConfiguredCall,
  configuration: JsonObject,
  delegates: Delegates,
  serve: Serve
): Promise<Printed> {
  const root = { path: '', value: configuration }
  const type = text(member(root, 'type')) || 'bridge'
  const original = { path: '', value: call.configuration }
  const extra = ['prevResult', 'cni.dev/valid-attachments', 'cni.dev/attachments'].flatMap((key) => {
    const { value } = member(original, key)
    return value === undefined ? [] : [[key, value] as const]
  })
  const whole = { ...configuration, ...Object.fromEntries(extra) }
  const next = delegates.withInput(JSON.stringify(whole))
  const { input: _, ...rest } = call
  const served = serve({ ...rest, plugin: type, configuration: whole } as ConfiguredCall, next)
  if (served !== undefined) return served
  const stdout = next.run(type, call.verb)
  return call.verb === 'ADD' ? { stdout: inVersionOf(stdout, type, call.version) } : {}
}

async function subnetFacts(files: Files, path: string): Promise<SubnetFacts> {
  let written: string
  try {
    written = await files.text(path)
  } catch (cause) {
    throw new WeftError(
      'SUBNET_FILE_UNREADABLE',
      `open ${path}: ${reasonOf(cause)}`,
      isForGood(cause)
        ? 'correct subnetFile in the CNI configuration: it must name a readable regular file, as weftd writes it'
        : 'wait until this node has a subnet (weftctl status), or correct subnetFile in the CNI configuration',
      { cause }
    )
  }
  return parseSubnetEnv(written, path)
}

/**
 * The configuration kept for a container, if it is of this network; a container may be in several. Errors:
 * STATE_UNWRITABLE where it can't be read at the moment: DEL with other values would leave something behind.
 */
async function kept(files: Files, path: string, network: string): Promise<JsonObject | undefined> {
  try {
    const value: unknown = JSON.parse(await files.text(path, LARGE_FILE))
    return isObject(value) && text(member({ path, value }, 'name')) === network ? value : undefined
  } catch (error) {
    // Missing, cut by a crash, or another program's: then subnet.env is used.
    const isNone = codeOf(error) === 'ENOENT' || isForGood(error)
    if (error instanceof SyntaxError || error instanceof FieldError || isNone) return undefined
    throw new WeftError(
      'STATE_UNWRITABLE',
      `${path} can't be read: ${reasonOf(error)}`,
      'find in the error what this host or its file system lacks; the runtime tries again',
      { cause: error }
    )
  }
}

/** Deletes the state of containers that the runtime no longer lists. */
async function removeOthers(files: Files, directory: string, call: NetworkCall): Promise<void> {
  await requireAnswer(files, directory)
  const valid = new Set(validAttachments(call).map(({ containerId }) => containerId))
  const names = (ifThere(directory, (path) => readdirSync(path)) ?? []).filter((name) => !valid.has(name))
  await allSteps(
    names.map((name) => async () => {
      const path = join(directory, name)
      if ((await kept(files, path, call.network)) !== undefined) rmSync(path, { force: true })
    })
  )
}
