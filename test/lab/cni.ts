// Calls CNI executables as a runtime's library does: six variables, one configuration on standard input, the chain in
// order, DEL in reverse.
import type { Host } from './host.ts'
import type { Finished } from './run.ts'

export type CniVerb = 'ADD' | 'DEL' | 'CHECK' | 'VERSION' | 'GC' | 'STATUS'
export type Json = { readonly [key: string]: unknown }

export interface CniCall {
  readonly verb: CniVerb
  /** One plugin's configuration (with `type`), or a list (with `plugins`). */
  readonly config: Json
  /** Folder, or folders separated by colons, of the executables. */
  readonly binDir: string
  readonly containerId?: string
  /** Path valid inside the host; `pod.netns`. */
  readonly netns?: string
  /** eth0 when absent. */
  readonly ifname?: string
  /** CNI_ARGS, as `K8S_POD_NAMESPACE=a;K8S_POD_NAME=b`. */
  readonly args?: string
  /** Values for the capabilities that plugins of a list declare, such as portMappings. */
  readonly capabilities?: Json
  /** What ADD returned; needed by CHECK and DEL of a list from version 0.4.0 on. */
  readonly prevResult?: unknown
  /** Rejects on an error of a plugin; true when absent. */
  readonly check?: boolean
}

export interface CniAnswer {
  /** Result of the last plugin that printed one; undefined for verbs without a result. */
  readonly result: Json | undefined
  /** The error object that a plugin printed, with its exit code, if one failed. */
  readonly error: { readonly code: number; readonly msg: string; readonly details?: string } | undefined
  /** From before the first executable's start to the last one's end, with nsenter's millisecond for each. */
  readonly microseconds: number
  readonly stdout: string
  readonly stderr: string
}

/**
 * The configurations that the executables of a call get, in the order in which they run; without prevResult of steps
 * yet to come.
 */
export function steps(call: Pick<CniCall, 'verb' | 'config' | 'capabilities'>): readonly Json[] {
  const { config, verb, capabilities = {} } = call
  const plugins = config.plugins
  const list = Array.isArray(plugins)
    ? (plugins as readonly Json[]).map((plugin) => listStep(config, plugin, capabilities))
    : [config]
  return verb === 'DEL' ? list.toReversed() : list
}

function listStep(list: Json, plugin: Json, offered: Json): Json {
  const { capabilities = {}, ...own } = plugin as Json & { readonly capabilities?: Json }
  const wanted = Object.entries(offered).filter(([name]) => capabilities[name] === true)
  const runtimeConfig = wanted.length > 0 ? { runtimeConfig: Object.fromEntries(wanted) } : {}
  return { ...own, cniVersion: list.cniVersion, name: list.name, ...runtimeConfig }
}

/** The six variables of a call. */
export function variables(call: CniCall): Readonly<Record<string, string>> {
  return {
    CNI_COMMAND: call.verb,
    CNI_CONTAINERID: call.containerId ?? '',
    CNI_NETNS: call.netns ?? '',
    CNI_IFNAME: call.ifname ?? 'eth0',
    CNI_ARGS: call.args ?? '',
    CNI_PATH: call.binDir
  }
}

/** Runs one call on a host. Plugins of a list follow each other, each with the result of the one before. */
export async function cni(host: Host, call: CniCall): Promise<CniAnswer> {
  const begun = process.hrtime.bigint()
  let prevResult = call.prevResult
  let result: Json | undefined
  let stdout = ''
  let stderr = ''
  let failed: CniAnswer['error']
  for (const step of steps(call)) {
    const finished = await runPlugin(host, call, prevResult === undefined ? step : { ...step, prevResult })
    stdout += finished.stdout
    stderr += finished.stderr
    const printed = parsed(finished.stdout)
    if (finished.code !== 0) {
      failed = {
        code: Number(printed?.code ?? finished.code),
        msg: String(printed?.msg ?? finished.stdout + finished.stderr)
      }
      const details = printed?.details
      if (typeof details === 'string') failed = { ...failed, details }
      break
    }
    result = printed ?? result
    if (call.verb === 'ADD') prevResult = printed
  }
  const microseconds = Number((process.hrtime.bigint() - begun) / 1000n)
  if (failed && (call.check ?? true)) {
    throw new Error(
      `CNI ${call.verb} of ${call.containerId} on ${host.name}: ${failed.code} ${failed.msg} ${failed.details ?? ''}\n${stderr}`
    )
  }
  return { result, error: failed, microseconds, stdout, stderr }
}

function runPlugin(host: Host, call: CniCall, config: Json): Promise<Finished> {
  const type = config.type
  if (typeof type !== 'string') throw new Error(`a CNI configuration without type: ${JSON.stringify(config)}`)
  const script =
    'IFS=:; for d in $CNI_PATH; do [ -x "$d/$0" ] && exec "$d/$0"; done; echo "no $0 in $CNI_PATH" >&2; exit 127'
  const [command, args] = call.binDir.includes(':') ? ['sh', ['-c', script, type]] : [`${call.binDir}/${type}`, []]
  return host.exec(command, args, { input: JSON.stringify(config), env: variables(call), check: false })
}

function parsed(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json
  } catch {
    return undefined
  }
}
