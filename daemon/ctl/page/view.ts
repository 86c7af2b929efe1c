// What the page shows of the answers: one sentence on top, the matrix, the nodes, the last changes.
import type { Asked } from './facts.ts'
import { isBroken, PATH_STATES, type PathState } from './marks.ts'
import { matrixView } from './matrix.ts'
import { nodesView } from './node-rows.ts'
import type { ChangesView, Mark, MatrixView, NodesView, View } from './view-types.ts'

/** Changes that are shown, and pods that the form offers. */
const MOST_CHANGES = 100
const MOST_PODS = 500

/** `at`: ISO 8601. `isCluster`: every node was asked, through kubectl. */
export function viewOf(asked: readonly Asked[], at: string, isCluster: boolean): View {
  const matrix = matrixView(asked)
  const nodes = nodesView(asked)
  const isListed = asked.every(({ facts }) => facts?.nodes?.listed !== false)
  const summary = summaryOf(matrix, nodes, isListed)
  return {
    at,
    title: `${summary.sign} ${summary.word} – Weft`,
    summary,
    notes: notesOf(asked, isCluster),
    matrix,
    nodes,
    changes: changesView(asked),
    pods: [...new Set(asked.flatMap(({ facts }) => facts?.pods?.pods.map(({ pod }) => pod) ?? []))]
      .filter((pod) => pod !== '')
      .sort()
      .slice(0, MOST_PODS)
  }
}

const count = (value: number, what: string): string => `${value.toLocaleString('en')} ${what}${value === 1 ? '' : 's'}`

/** One sentence: what is broken, that all is whole, or that this is not known. */
function summaryOf({ legend }: MatrixView, { rows }: NodesView, isListed: boolean): Mark {
  const of = (state: PathState) => legend[PATH_STATES[state].letter]?.count ?? 0
  const states = Object.keys(PATH_STATES) as PathState[]
  const broken = states.filter(isBroken).reduce((sum, state) => sum + of(state), 0)
  const sick = rows.filter(({ state }) => state.tone === 'bad').length
  const warned = rows.filter(({ state }) => state.tone === 'warning').length
  const paths = broken + of('whole') + of('host-firewall') + of('unknown') + of('not-asked')
  const faults = [
    ...(broken > 0
      ? [`${broken.toLocaleString('en')} of ${count(paths, 'path')} between nodes ${are(broken)} broken`]
      : []),
    ...(sick > 0
      ? [`${count(sick, 'node')} ${sick === 1 ? 'has an error or does' : 'have errors or do'} not answer`]
      : []),
    ...(broken + sick === 0 && warned > 0
      ? [`${count(warned, 'node')} ${warned === 1 ? 'has' : 'have'} a warning`]
      : [])
  ]
  if (faults.length > 0)
    return { sign: broken + sick > 0 ? '×' : '!', word: faults.join('; '), tone: broken + sick > 0 ? 'bad' : 'warning' }
  const [whole, silent] = [of('whole'), of('host-firewall')]
  if (silent > 0 && whole + silent === paths)
    return {
      ...{ sign: '✓', tone: 'good' },
      word: `Packets arrive on all ${count(paths, 'path')}; on ${silent.toLocaleString('en')} the node's firewall drops echo`
    }
  if (whole === 0 || of('unknown') + of('not-asked') > 0) return unknown(whole, paths, isListed && rows.length === 1)
  return {
    sign: '✓',
    word: `All ${count(whole, 'path')} between ${count(rows.length, 'node')} are whole`,
    tone: 'good'
  }
}

const are = (value: number): string => (value === 1 ? 'is' : 'are')

function unknown(whole: number, paths: number, isAlone: boolean): Mark {
  if (isAlone && paths === 0) return { sign: '✓', word: 'This node is alone in its network', tone: 'good' }
  const word =
    whole === 0
      ? 'No fault is reported; whether packets arrive is not known'
      : `No fault is known: ${whole.toLocaleString('en')} of ${count(paths, 'path')} between nodes ${are(whole)} whole, the others were not asked`
  return { sign: '?', word, tone: 'unknown' }
}

function notesOf(asked: readonly Asked[], isCluster: boolean): readonly string[] {
  const notes: string[] = []
  const silent = asked.filter(({ facts }) => facts === undefined)
  if (silent.length > 0 && isCluster) notes.push(`${count(silent.length, 'node')} of ${asked.length} gave no answer.`)
  if (asked.some(({ facts }) => facts?.nodes?.listed === false))
    notes.push('The store has not listed its leases yet, so nodes are missing here.')
  const hasReports = asked.some(({ facts }) => facts?.peers?.reports !== undefined)
  const hasPeers = asked.some(({ facts }) => facts?.peers !== undefined)
  if (!isCluster && hasPeers && !hasReports)
    notes.push('This is what one node sees. In a Kubernetes cluster, kubectl weft page asks every node.')
  return notes
}

function changesView(asked: readonly Asked[]): ChangesView {
  const all = asked.flatMap(({ name, facts }) =>
    (facts?.changes?.changes ?? []).map((change) => ({ ...change, node: facts?.status?.node || name }))
  )
  const silent = asked.map(({ facts }) => facts?.unanswered.changes).find((reason) => reason !== undefined)
  const culprits = new Map<string, number>()
  // Of one program with many processes, one line.
  const nameOf = (culprit: string | undefined) => culprit?.replace(/ \(\d+\)$/, '') ?? 'unknown'
  for (const { culprit } of all.filter(({ isOwn }) => !isOwn))
    culprits.set(nameOf(culprit), (culprits.get(nameOf(culprit)) ?? 0) + 1)
  return {
    rows: all
      .toSorted((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : 0))
      .slice(0, MOST_CHANGES)
      .map(({ at, node, text, culprit, unnamed, tookMs }) => ({
        ...{ at, node, text, culprit: culprit ?? (unnamed === undefined ? 'unknown' : `unknown: ${unnamed}`) },
        took: tookMs === undefined ? '' : `${tookMs.toLocaleString('en')} ms`
      })),
    culprits: [...culprits].map(([name, count]) => ({ name, count })).sort((a, b) => b.count - a.count),
    note: noteOf(all.length, silent)
  }
}

function noteOf(changes: number, silent: string | undefined): string {
  if (changes > MOST_CHANGES) return `The last ${MOST_CHANGES} of ${changes.toLocaleString('en')} are shown.`
  if (changes > 0) return ''
  return silent === undefined
    ? 'No other program has changed anything since weftd started.'
    : `What other programs changed is not known: ${silent}.`
}
