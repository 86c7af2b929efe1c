// A context for the pod verbs in unit tests: real reservations, a host that applies at once, empty namespaces.
import { flock } from '../../../daemon/os/flock.ts'
import { Attachments } from '../../../daemon/pod/attachments.ts'
import type { HostState, PodContext } from '../../../daemon/pod/context.ts'
import { type State, stateOf } from '../../../daemon/state/object.ts'
import { Networks } from '../../../ipam/networks.ts'
import { FileReader } from '../../../ipam/read-file.ts'
import { silent } from '../logs.ts'
import { testNode } from '../test-node.ts'

/** A host that holds these objects, whatever it is asked for. */
export const stillHost = (observed: State = stateOf([])): HostState => ({
  observed,
  want: async () => [],
  wantAll: async () => [],
  keep() {},
  discard: async () => [],
  impose: async () => [],
  desired: stateOf([])
})

/** A node without a subnet, before any pod. */
export const podContext = (over: Partial<PodContext> = {}): PodContext => ({
  kernel: {
    sandbox: async () => ({
      bring: async () => undefined,
      apply: async () => [],
      read: async () => stateOf([]),
      [Symbol.dispose]() {}
    }),
    runs: async () => true,
    exists: () => false,
    routeTo: async () => undefined,
    filtersVlans: async () => true,
    removeOtherChains: async () => undefined
  },
  host: stillHost(),
  attachments: new Attachments(),
  networks: new Networks(() => ({ lock: flock, boot: { id: 'boot', since: 0 } })),
  files: new FileReader(),
  health: { blockers: () => [], raise() {}, clear() {} },
  place: () => undefined,
  namespace: 'net:[1]',
  self: testNode(),
  defaultMode: 'bridge',
  updateForeignAccepts: async () => undefined,
  log: silent,
  now: () => performance.now(),
  timings() {},
  ...over
})
