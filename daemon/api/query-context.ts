// What the answers to weftctl are made from, and what answers about pods and nodes share.
import { nearest } from '../base/nearest.ts'
import type { CallHistory } from '../cni/call-history.ts'
import type { Health } from '../health/health.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Attachments } from '../pod/attachments.ts'
import type { Reserved } from '../pod/recovery/rebuild.ts'
import type { RecentChanges } from '../reconcile/recent-changes.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { type KernelObject, keyOf, type State, sameObject } from '../state/object.ts'
import { textOf } from '../state/text.ts'
import type { FollowedWay, Way } from '../underlay/follow-way.ts'
import type { ProbeViews } from '../underlay/probe-views.ts'
import type { ObjectAnswer } from './answers.ts'
import type { ReportAnswer } from './path-answers.ts'

export type QueryContext = {
  readonly version: string
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly nodeName: string
  readonly store: string
  readonly health: Pick<Health, 'active' | 'blockers'>
  readonly reconciler: Pick<Reconciler, 'desired' | 'observed' | 'wantedBy' | 'differences' | 'trusts'>
  readonly changes: Pick<RecentChanges, 'list'>
  readonly peers: Pick<Peers, 'leases' | 'skipped' | 'since' | 'isOwn' | 'others' | 'isListed'>
  readonly attachments: Pick<Attachments, 'list' | 'vanished' | 'released'>
  readonly outcomes: Pick<CallHistory, 'of' | 'ofContainer' | 'pods'>
  /** What the kernel does with packets to the pods of a lease's node, where that is not what its route says. */
  readonly shadowed: (key: string) => string | undefined
  /** What probes found on the ways to other nodes, and what those published of theirs. */
  readonly probes: {
    readonly views: Pick<ProbeViews, 'all' | 'of'>
    readonly reports?: () => Promise<readonly ReportAnswer[] | undefined>
  }
  readonly reserved: () => Promise<readonly Reserved[]>
  /** When our lease ends unless it is renewed, in milliseconds since 1970. */
  readonly leaseEnds: () => number | undefined
  /** `undefined` until this node has a subnet. */
  readonly place: () => Place | undefined
  /** Follows ways of packets (`underlay/follow-way.ts`); absent: none is followed. */
  readonly ways?: (ways: readonly Way[]) => Promise<readonly FollowedWay[]>
}

/** Compares the kernel's object with a desired one. */
export function stateIn(observed: State, object: KernelObject): ObjectAnswer['state'] {
  const have = observed.get(keyOf(object))
  if (have === undefined) return 'missing'
  return sameObject(object, have) ? 'there' : 'different'
}

/** A desired object in the syntax of `ip`, and its state in the kernel. */
export function objectAnswer(observed: State, object: KernelObject): ObjectAnswer {
  const have = observed.get(keyOf(object))
  const state = stateIn(observed, object)
  return { text: textOf(object), state, ...(state === 'different' && have && { instead: textOf(have) }) }
}

/** The closest name, and names that contain the word. */
export function nearTo(name: string, names: readonly string[]): readonly string[] {
  const word = name.slice(name.lastIndexOf('/') + 1).toLowerCase()
  const close = nearest(name, names)
  const containing = names.filter((each) => word !== '' && each.toLowerCase().includes(word))
  return [...new Set([...(close === undefined ? [] : [close]), ...containing])].slice(0, 5)
}
