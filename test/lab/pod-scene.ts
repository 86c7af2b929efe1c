// A context for the pod verbs with real kernel, reconciler and reservations in the test's own network namespace; only
// the lease is fake.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Mode } from '../../daemon/attachment/objects.ts'
import { BACKENDS, registry } from '../../daemon/backend/registry.ts'
import { Firewall } from '../../daemon/kernel/nftables/firewall.ts'
import { flock } from '../../daemon/os/flock.ts'
import { Attachments } from '../../daemon/pod/attachments.ts'
import type { PodContext } from '../../daemon/pod/context.ts'
import { forgetVanished } from '../../daemon/pod/recovery/rebuild.ts'
import { wantedSysctls } from '../../daemon/reconcile/desired.ts'
import type { DriftReport } from '../../daemon/reconcile/drift.ts'
import { Reconciler } from '../../daemon/reconcile/reconciler.ts'
import { Networks } from '../../ipam/networks.ts'
import { FileReader } from '../../ipam/read-file.ts'
import type { VethAttachment } from '../../plugins/attachment.ts'
import { attachmentOf } from '../unit/attachment/attachment.ts'
import { dualStackNode } from '../unit/test-node.ts'
import { open, prefix, quiet, run } from './kernel-namespace.ts'

const backends = registry(BACKENDS)

let sandboxes = 0

/** A pod's namespace, by a name that begins with this process's own. */
export class Sandbox implements Disposable {
  readonly name = `weft-pod-${process.pid}-${sandboxes++}`
  readonly path = `/run/netns/${this.name}`
  readonly containerId = this.name

  constructor() {
    run('ip', 'netns', 'add', this.name)
  }

  exec(...command: readonly string[]): string {
    return run('ip', 'netns', 'exec', this.name, ...command)
  }

  /** Whether one answer comes within the deadline. */
  async reaches(ip: string): Promise<boolean> {
    const ping = ['netns', 'exec', this.name, 'ping', '-n', '-c', '1', '-W', '1', ip]
    return promisify(execFile)('ip', ping).then(
      () => true,
      () => false
    )
  }

  attachment(over: Parameters<typeof attachmentOf>[0] & { readonly dataDir: string }): VethAttachment {
    const { dataDir, ...rest } = over
    return attachmentOf({
      containerId: this.containerId,
      sandbox: this.path,
      because: `pod of ${this.name}`,
      ipam: { dataDir, requested: [], ranges: [], routes: [] },
      ...rest
    })
  }

  [Symbol.dispose](): void {
    try {
      run('ip', 'netns', 'del', this.name)
    } catch {
      // A test took it away before.
    }
  }
}

export type PodPlace = AsyncDisposable & {
  readonly context: PodContext
  readonly reconciler: Reconciler
  readonly dataDir: string
  /** Files that are reservations. */
  reservations(): readonly string[]
  /** Condition codes that hold. */
  readonly conditions: Map<string, string>
  /** What the kernel refused the reconciler, as it was told last. */
  refused(): readonly string[]
  /** Repairs of other programs' changes. */
  readonly drifts: readonly DriftReport[]
}

export type PlaceOptions = {
  readonly mode?: Mode
  readonly dataDir?: string
  readonly subnet?: { readonly 4?: string; readonly 6?: string }
  /** With nftables, for host ports. */
  readonly firewall?: true
}

/**
 * A node that holds 10.244.1.0/24 and fd00:0:0:1::/64 (or `subnet`). A second one on the same `dataDir` is a restarted
 * daemon.
 */
export async function podPlace(options: PlaceOptions = {}): Promise<PodPlace> {
  const own = options.dataDir === undefined
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'weft-pods-'))
  const stop = new AbortController()
  const sysctls = (): readonly string[] => wantedSysctls(reconciler.desired)
  const kernel = await open({
    sysctls,
    ...(options.firewall && { nft: new Firewall({ iptablesResyncSeconds: 3_600 }) })
  })
  const drifts: DriftReport[] = []
  let refused: readonly string[] = []
  const reconciler = new Reconciler({
    kernel,
    log: quiet,
    now: () => performance.now(),
    refused: (errors) => {
      refused = errors
    },
    drift: (report) => drifts.push(report),
    recognises: backends.recognises,
    interest: ({ kind }) => kind === 'link' || kind === 'address'
  })
  const ended = reconciler.run(stop.signal)
  await reconciler.observing
  const conditions = new Map<string, string>()
  const subnet = options.subnet ?? { 4: '10.244.1.0/24', 6: 'fd00:0:0:1::/64' }
  const context: PodContext = {
    kernel,
    host: reconciler,
    attachments: new Attachments(),
    files: new FileReader(),
    networks: new Networks(() => ({ lock: flock, boot: { id: 'this', since: 0 } })),
    health: {
      blockers: () => [],
      raise: (code, detail) => void conditions.set(code, detail),
      clear: (code) => void conditions.delete(code)
    },
    place: () => ({
      node: dualStackNode({
        subnet: {
          ...(subnet[4] === undefined ? {} : { 4: prefix(subnet[4]) }),
          ...(subnet[6] === undefined ? {} : { 6: prefix(subnet[6]) })
        }
      }),
      mtu: 1450,
      clusterNetworks: { 4: prefix('10.244.0.0/16'), 6: prefix('fd00::/48') }
    }),
    namespace: 'net:[1]',
    self: { identity: 'node-1', ipv6: true },
    defaultMode: options.mode ?? 'bridge',
    updateForeignAccepts: async () => undefined,
    log: quiet,
    now: () => performance.now(),
    timings: () => undefined
  }
  reconciler.onObserved(forgetVanished(context))
  return {
    context,
    reconciler,
    dataDir,
    conditions,
    refused: () => refused,
    drifts,
    reservations: () => {
      try {
        return readdirSync(join(dataDir, 'net1')).filter(
          (name) => /^[0-9a-f:.]+\d$/.test(name) && !name.startsWith('last')
        )
      } catch {
        return []
      }
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await ended
      await kernel[Symbol.asyncDispose]()
      if (own) rmSync(dataDir, { recursive: true, force: true })
    }
  }
}

/** Names of links on the host, loopback left out. */
export const hostLinks = (): readonly string[] =>
  run('ip', '-o', 'link')
    .split('\n')
    .flatMap((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? [])
    .filter((name) => name !== 'lo')

export const veths = (): readonly string[] => hostLinks().filter((name) => name.startsWith('veth'))

export const rejectsWith = (work: Promise<unknown>, code: string, message: RegExp): Promise<void> =>
  assert.rejects(work, (error: Error & { code?: string }) => {
    assert.equal(error.code, code, error.message)
    assert.match(error.message, message)
    return true
  })
