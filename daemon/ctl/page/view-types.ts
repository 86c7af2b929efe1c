// What the server of `weftctl page` sends to the browser: texts to show, in the order in which they are shown.

export type Tone = 'good' | 'warning' | 'bad' | 'unknown'

/** A state in a sign, a word and a tone, so that colour is never the only carrier. */
export type Mark = { readonly sign: string; readonly word: string; readonly tone: Tone }

export type View = {
  /** ISO 8601: when the answers were complete. */
  readonly at: string
  /** Title of the window. */
  readonly title: string
  readonly summary: Mark
  /** What limits what can be seen here, and what to do about it. */
  readonly notes: readonly string[]
  readonly matrix: MatrixView
  readonly nodes: NodesView
  readonly changes: ChangesView
  /** Pods that the form offers. */
  readonly pods: readonly string[]
}

export type MatrixView = {
  /** By letter of `states`; those that occur, in the order of the legend. */
  readonly legend: Readonly<Record<string, Mark & { readonly count: number }>>
  readonly columns: readonly NameView[]
  readonly rows: readonly (NameView & {
    /** A letter per column. */
    readonly states: string
    /** Microseconds per column; `null` where none is known. */
    readonly roundTrips: readonly (number | null)[]
  })[]
  /** What is left out, where not all nodes are shown; or why there is no matrix. */
  readonly note: string
  readonly broken: readonly BrokenView[]
  /** Broken paths that `broken` leaves out. */
  readonly more: number
}

export type NameView = { readonly key: string; readonly name: string }

/** A path with something wrong. */
export type BrokenView = {
  readonly from: string
  readonly to: string
  readonly fromName: string
  readonly toName: string
  readonly mark: Mark
  /** `pods`, `plain route`, `node to node`; with the family. */
  readonly way: string
  readonly text: string
  readonly cure: string
  readonly since: string
}

export type NodesView = {
  readonly rows: readonly NodeView[]
  readonly note: string
}

export type NodeView = NameView & {
  readonly state: Mark
  readonly addresses: string
  readonly subnet: string
  readonly backend: string
  readonly mtu: string
  readonly pods: string
  /** ISO 8601, `no end`, or empty. */
  readonly leaseEnds: string
  readonly conditions: readonly ConditionView[]
}

export type ConditionView = {
  readonly mark: Mark
  readonly code: string
  readonly text: string
  readonly cure: string
  /** ISO 8601, or empty. */
  readonly since: string
}

export type ChangesView = {
  readonly rows: readonly ChangeView[]
  /** Who made changes, the most first. */
  readonly culprits: readonly { readonly name: string; readonly count: number }[]
  readonly note: string
}

export type ChangeView = {
  readonly at: string
  readonly node: string
  readonly text: string
  readonly culprit: string
  readonly took: string
}

/** The path from a pod to a pod. */
export type PathView = {
  readonly summary: Mark
  readonly parts: readonly {
    readonly heading: string
    readonly hops: readonly HopView[]
    /** An answer without hops: lines as weftctl prints them. */
    readonly lines: readonly string[]
  }[]
}

export type HopView = { readonly mark: Mark; readonly name: string; readonly text: string; readonly cure: string }
