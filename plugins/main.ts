// The plugin executable, the same under every name: reads the call, forwards it to weftd, prints the answer; runs
// third-party plugins at weftd's request.
import { readCall, readEnvironment, type Variables, versionForError } from './call.ts'
import { asCniError, CniError, cniCode, printError } from './cni/error.ts'
import { isObject, member } from './cni/field.ts'
import type { Call, Invocation } from './cni/types.ts'
import { newestVersion, supportedVersions, type Verb } from './cni/version.ts'
import type { Host } from './host.d.ts'
import {
  type CniRequest,
  type Done,
  defaultSocketPath,
  type FileOnHost,
  type Finished,
  isSent,
  parseReply,
  protocolVersion,
  type Reply,
  type Run
} from './protocol.ts'
import { unreachable } from './unreachable.ts'

/** Set by scripts/build-plugins from package.json. */
declare const WEFT_VERSION: string | undefined

/** Enough for a GC with tens of thousands of attachments; weftd, which parses it, has 256 MiB in the manifest. */
const longestInputBytes = 10 * 1024 * 1024

/**
 * kubelet allows a sandbox 2 to 4 minutes: answer before that. STATUS comes every few seconds, and calls must not pile
 * up.
 */
const deadlineMs = (verb: Verb): number => (verb === 'STATUS' ? 5_000 : 100_000)

/** No plugin has more delegates; a daemon that requests more has a bug. */
const mostRuns = 16

/** Runs one CNI call to its end; resolves to the exit status. */
export async function main(host: Host): Promise<number> {
  const plugin = host.program.slice(host.program.lastIndexOf('/') + 1) || 'weft'
  const variables = variablesOf(host.environment)
  if ((variables.CNI_COMMAND ?? '') === '') {
    await host.write('error', usage(plugin))
    return 0
  }
  let input = ''
  try {
    const invocation = readEnvironment(variables)
    if (invocation.verb === 'VERSION') {
      await host.write('output', `${JSON.stringify({ cniVersion: newestVersion, supportedVersions })}\n`)
      return 0
    }
    input = await standardInput(host)
    const finished = await serve(host, plugin, invocation, variables, input)
    if (finished.stderr !== '') await host.write('error', finished.stderr)
    if (finished.stdout !== '') await host.write('output', finished.stdout)
    return finished.exit
  } catch (thrown) {
    await host.write('output', printError(asCniError(thrown), versionForError(input), variables.CNI_COMMAND))
    return 1
  }
}

const usage = (plugin: string): string =>
  `${plugin}: CNI plugin of Weft ${typeof WEFT_VERSION === 'string' ? WEFT_VERSION : '(from source)'}, run by a container runtime\n` +
  `CNI protocol versions supported: ${supportedVersions.join(', ')}\n`

/** Of a variable that is set twice the last counts. */
function variablesOf(environment: readonly string[]): Variables {
  const variables: Record<string, string> = Object.create(null)
  for (const each of environment) {
    const at = each.indexOf('=')
    if (at > 0) variables[each.slice(0, at)] = each.slice(at + 1)
  }
  return variables
}

async function standardInput(host: Host): Promise<string> {
  const input = await host.readInput(longestInputBytes)
  if (input.kind === 'text') return input.text
  throw new CniError('cannot read the network configuration from standard input', {
    code: cniCode.inputOutput,
    details: input.reason
  })
}

/** Checks the call, forwards it unchanged, and runs delegates until weftd sends the final answer. */
async function serve(
  host: Host,
  plugin: string,
  invocation: Invocation,
  variables: Variables,
  input: string
): Promise<Finished> {
  const call = readCall(plugin, invocation, input)
  const { verb } = call
  const env = Object.fromEntries(Object.entries(variables).filter(([name]) => isSent(name)))
  // The host of a CNI call is the namespace that the plugin was called in, which may not be weftd's.
  const namespace = await host.readLink('/proc/self/ns/net')
  // Paths in a configuration are the host's, and weftd may be in a container.
  const root = await host.identity('/')
  const resolvConf = await resolvConfOf(host, call)
  const did: Done[] = []
  for (let runs = 0; runs <= mostRuns; runs++) {
    const request = {
      v: protocolVersion,
      plugin,
      ...(namespace === '' ? {} : { namespace }),
      ...(root === '' ? {} : { root }),
      ...(resolvConf === undefined ? {} : { resolvConf }),
      env,
      stdin: input,
      deadlineMs: deadlineOf(variables, verb),
      did
    } satisfies CniRequest
    const reply = await ask(host, variables.WEFTD_SOCKET || defaultSocketPath, request, verb)
    if (!('run' in reply)) return reply
    did.push(await run(host, reply.run))
  }
  throw new CniError(`weftd requested more than ${mostRuns} delegates in one ${verb}`, {
    code: cniCode.internal,
    details: 'This is a bug in weftd: report it with its log.'
  })
}

/** Bytes; a resolv.conf(5) has a few hundred. */
const longestResolvConf = 64 * 1024

async function resolvConfOf(host: Host, call: Call): Promise<FileOnHost | undefined> {
  if (call.verb !== 'ADD') return undefined
  const ipam = { path: 'ipam', value: member({ path: '', value: call.configuration }, 'ipam').value }
  const path = isObject(ipam.value) ? member(ipam, 'resolvConf').value : undefined
  // What is no path is refused by weftd, with the configuration's other values.
  if (typeof path !== 'string' || path === '') return undefined
  const read = await host.readText(path, longestResolvConf)
  return read.kind === 'text' ? { text: read.text } : { reason: read.reason }
}

/** WEFTD_DEADLINE_MS is for tests, as WEFTD_SOCKET is. */
function deadlineOf(variables: Variables, verb: Verb): number {
  const configured = Number(variables.WEFTD_DEADLINE_MS)
  return Number.isInteger(configured) && configured > 0 ? configured : deadlineMs(verb)
}

async function ask(host: Host, socketPath: string, request: CniRequest, verb: Verb): Promise<Reply> {
  const answer = await host.request(socketPath, JSON.stringify(request), request.deadlineMs)
  if (answer.kind !== 'line') {
    const userNamespace = await host.readLink('/proc/self/ns/user')
    throw unreachable({ ...answer, userNamespace }, socketPath, request.deadlineMs, verb)
  }
  try {
    return parseReply(answer.line)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new CniError(`weftd sent an answer on ${socketPath} that can't be parsed`, {
      code: cniCode.internal,
      details: reason,
      cause
    })
  }
}

/** Runs a delegate; its standard error is passed on, as the specification says ("Delegated plugin execution"). */
async function run(host: Host, requested: Run): Promise<Done> {
  const { id, type, path, env, stdin, deadlineMs } = requested
  const program = await find(host, type, path)
  if (program === undefined)
    return { kind: 'failed', id, reason: `failed to find plugin "${type}" in path [${path.join(' ')}]` }
  const ended = await host.spawn(program, [], env, stdin, deadlineMs)
  if (ended.kind !== 'failed' && ended.stderr !== '') await host.write('error', ended.stderr)
  switch (ended.kind) {
    case 'failed':
      return { kind: 'failed', id, reason: `${program} cannot be run: ${ended.reason}` }
    case 'exited':
      return { kind: 'ended', id, exit: ended.status, stdout: ended.stdout, stderr: ended.stderr }
    case 'killed':
      return { kind: 'failed', id, reason: `${program} was killed by signal ${ended.status}` }
    case 'deadline':
      return { kind: 'failed', id, reason: `${program} did not end within ${deadlineMs} ms and was killed` }
  }
}

/** The first file of that name, executable or not, as libcni looks for plugins. */
async function find(host: Host, type: string, path: readonly string[]): Promise<string | undefined> {
  for (const directory of path) {
    const program = `${directory}/${type}`
    if (await host.isFile(program)) return program
  }
  return undefined
}
