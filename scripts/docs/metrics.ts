// Table for docs/metrics.md: every metric, parsed from the source where it is created. A registry has only those of the
// store and backend in use.
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { code, table } from './markdown.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

export type Described = {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly labels: readonly string[]
}

const TEXT = /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"/.source
/** `metrics.counter('name', 'help', ['label'])`, and the two short forms in daemon/health/metrics.ts. */
const CALL = new RegExp(
  `\\b(counter|gauge|histogram|rising)(?:<[^(]*>)?\\(\\s*(?:metrics,\\s*)?'(weft_[a-z0-9_]+)',\\s*(${TEXT})(?:,\\s*\\[([^\\]]*)\\])?`,
  'g'
)

const sources = (): readonly string[] =>
  globSync('daemon/**/*.ts', { cwd: root }).map((path) => readFileSync(join(root, path), 'utf8'))

/** In alphabetical order. */
export function describedMetrics(): readonly Described[] {
  return sources()
    .flatMap((source) => [...source.matchAll(CALL)])
    .map(
      ([, how = '', name = '', help = '', labels = '']): Described => ({
        name,
        type: how === 'rising' ? 'counter' : (how as Described['type']),
        help: help.slice(1, -1).replaceAll(/\\(.)/g, '$1'),
        labels: [...labels.matchAll(/'([^']+)'/g)].map(([, label = '']) => label)
      })
    )
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Every string in the source that could be a metric's name, however it is used. */
export const metricNames = (): readonly string[] => [
  ...new Set(
    sources().flatMap((source) => [...source.matchAll(/['"`](weft_[a-z0-9_]+)['"`]/g)].map(([, name = '']) => name))
  )
]

/** By the rules of names that daemon/health/metrics.ts checks. */
function unitOf({ name }: Described): string {
  const base = name.replace(/_total$/, '')
  return /_seconds$/.test(base) ? 'seconds' : /_bytes$/.test(base) ? 'bytes' : ''
}

export const blocks = {
  metrics: () =>
    table([
      ['name', 'type', 'labels', 'unit', 'meaning'],
      ...describedMetrics().map((metric) => [
        code(metric.name),
        metric.type,
        metric.labels.map(code).join(', '),
        unitOf(metric),
        metric.help
      ])
    ])
}
