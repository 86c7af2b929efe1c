// Many pods and many calls at once on one host: namespaces in one go, real processes by the hundred, and what the
// daemon holds before and after.
import assert from 'node:assert/strict'
import type { ChildProcess } from 'node:child_process'
import { BIN } from '../lab/cluster.ts'
import type { CniVerb, Json } from '../lab/cni.ts'
import type { Host } from '../lab/host.ts'
import { atMostOpen, recordOf } from '../lab/host-record.ts'
import { until } from '../lab/run.ts'

export type Ended = {
  readonly exit: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly json: Json & { readonly code?: number; readonly msg?: string; readonly details?: string }
}

export type Call = {
  readonly verb: CniVerb
  readonly id: string
  /** The executable's name; weft when absent. */
  readonly type?: string
  readonly config?: Json
  readonly ifname?: string
  readonly netns?: string
  /** Folders for CNI_PATH; ours when absent. */
  readonly path?: string
}

/** A call that runs: its process, which is the executable itself once nsenter has made way, and its end. */
export type Running = { readonly child: ChildProcess; readonly ended: Promise<Ended> }

/** The namespace of a pod made by `makePods`. */
export const netnsOf = (id: string): string => `/run/netns/${id}`

export function start(host: Host, call: Call): Running {
  const { type = 'weft', config = {}, path = BIN } = call
  const env = {
    ...process.env,
    CNI_COMMAND: call.verb,
    CNI_CONTAINERID: call.id,
    CNI_NETNS: call.netns ?? netnsOf(call.id),
    CNI_IFNAME: call.ifname ?? 'eth0',
    CNI_ARGS: '',
    CNI_PATH: path
  }
  const child = host.spawnChild(`${BIN}/${type}`, [], { env, stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<Ended>((resolve, reject) => {
    let stdout = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    // A killed process does not read its input.
    child.stdin.on('error', () => undefined)
    child.on('error', reject)
    child.on('close', (exit, signal) => {
      try {
        resolve({ exit, signal, stdout, json: stdout === '' ? {} : (JSON.parse(stdout) as Ended['json']) })
      } catch (cause) {
        if (signal !== null) resolve({ exit, signal, stdout, json: {} })
        else reject(new Error(`${call.verb} of ${call.id} printed no JSON: ${stdout}`, { cause }))
      }
    })
  })
  child.stdin.end(JSON.stringify({ cniVersion: '1.1.0', name: 'net1', type, ...config }))
  return { child, ended }
}

/** Runs a call to its end, which must be a success. */
export async function ok(host: Host, call: Call): Promise<Json> {
  const { exit, signal, stdout, json } = await start(host, call).ended
  assert.equal(exit, 0, `${call.verb} of ${call.type ?? 'weft'} for ${call.id}: ${signal ?? ''}${stdout}`)
  return json
}

/** Makes empty namespaces in one script. */
export async function makePods(host: Host, ids: readonly string[]): Promise<void> {
  await host.sh(`for id in ${ids.join(' ')}; do : > /run/netns/$id; unshare --net=/run/netns/$id true; done`, {
    timeoutMs: 120_000
  })
}

export async function removePods(host: Host, ids: readonly string[]): Promise<void> {
  await host.sh(`for id in ${ids.join(' ')}; do umount /run/netns/$id; rm /run/netns/$id; done`, { timeoutMs: 120_000 })
}

/** Works on all, so many at a time. */
export async function inParallel<T, R>(
  all: readonly T[],
  together: number,
  work: (each: T) => Promise<R>
): Promise<readonly R[]> {
  const results: R[] = []
  const left = all.entries()
  const lane = async () => {
    for (const [at, each] of left) results[at] = await work(each)
  }
  await Promise.all(Array.from({ length: together }, lane))
  return results
}

/** The address in a result, without its length. */
export function addressIn(result: Json): string {
  const [first] = (result.ips ?? []) as readonly { readonly address: string }[]
  return String(first?.address.split('/')[0])
}

/**
 * Waits until the host is as `record` says and the daemon has no more files open than before; fails with the
 * difference.
 */
export async function isAsBefore(
  host: Host,
  record: string,
  files: { readonly pid: number; readonly open: number }
): Promise<void> {
  const now = () => recordOf(host, { networks: false })
  await until(async () => (await now()) === record, {
    what: 'the host to be as it was',
    deadlineMs: 60_000,
    everyMs: 200
  }).catch(async () => assert.equal(await now(), record))
  await atMostOpen(files.pid, files.open)
}
