// Dashboard and alerts against the metrics that weftd has: names, labels, and conditions by their codes.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { parse } from 'yaml'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import { describedMetrics } from '../../../scripts/docs/metrics.ts'
import { deployFolder } from './manifests.ts'

type Panel = {
  readonly title: string
  readonly description?: string
  readonly targets?: readonly { readonly expr: string }[]
}
type Rule = { readonly alert: string; readonly expr: string; readonly annotations: Readonly<Record<string, string>> }

const dashboard = JSON.parse(readFileSync(`${deployFolder}monitoring/weft.json`, 'utf8')) as {
  readonly panels: readonly Panel[]
  readonly templating: { readonly list: readonly { readonly query: string }[] }
}
const rules = (
  parse(readFileSync(`${deployFolder}monitoring/30-prometheus-rule.yaml`, 'utf8')) as {
    readonly spec: { readonly groups: readonly { readonly rules: readonly Rule[] }[] }
  }
).spec.groups.flatMap((group) => group.rules)

const queries: readonly (readonly [where: string, query: string])[] = [
  ...dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
  ...dashboard.templating.list.map(({ query }) => ['variable', query] as const),
  ...rules.map(({ alert, expr }) => [alert, expr] as const)
]
const metrics = new Map(describedMetrics().map((metric) => [metric.name, metric]))

/** Labels that Prometheus adds: which node, which bucket, which target. */
const ADDED = ['node', 'le', 'job']

/** Each metric that a query names, with the labels by which it chooses. */
function selectors(query: string): readonly { readonly name: string; readonly labels: readonly string[] }[] {
  return [...query.matchAll(/\b(weft_[a-z0-9_]+)(?:\{([^}]*)\})?/g)].map(([, name = '', chosen = '']) => ({
    name,
    labels: [...chosen.matchAll(/(\w+) *(?:=~|!~|!=|=)/g)].map(([, label = '']) => label)
  }))
}

const baseOf = (name: string): string => name.replace(/_(bucket|sum|count)$/, '')

test('every query of dashboard and alerts names metrics that exist, by labels that they have', () => {
  let seen = 0
  for (const [where, query] of queries)
    for (const { name, labels } of selectors(query)) {
      const metric = metrics.get(name) ?? metrics.get(baseOf(name))
      assert.ok(metric, `${where}: there is no metric ${name}`)
      assert.equal(metric.type === 'histogram', metric.name !== name, `${where}: ${name} of a ${metric.type}`)
      for (const label of labels)
        assert.ok([...metric.labels, ...ADDED].includes(label), `${where}: ${name} has no label ${label}`)
      seen++
    }
  assert.ok(seen > 20)
})

test('what a query groups by is a label of the metric in it', () => {
  for (const [where, query] of queries)
    for (const [, grouped = ''] of query.matchAll(/\bby \(([^)]*)\)/g)) {
      const known = selectors(query).flatMap(
        ({ name }) => metrics.get(name)?.labels ?? metrics.get(baseOf(name))?.labels ?? []
      )
      for (const label of grouped.split(/, */)) assert.ok([...known, ...ADDED].includes(label), `${where}: ${label}`)
    }
})

test('counters are only looked at by their rate, and nothing else is', () => {
  for (const [where, query] of queries)
    for (const { name } of selectors(query)) {
      const metric = metrics.get(name) ?? metrics.get(baseOf(name))
      const isRate = new RegExp(`(rate|increase)\\(${name}\\b`).test(query)
      const grows = metric?.type === 'counter' || metric?.type === 'histogram'
      assert.equal(isRate, grows, `${where}: ${name}`)
    }
})

test('conditions are named by codes that exist', () => {
  const codes = queries.flatMap(([, query]) =>
    [...query.matchAll(/code *(?:=~|!~|!=|=) *"([^"]*)"/g)].flatMap(([, text = '']) => text.split('|'))
  )
  assert.ok(codes.length > 0)
  assert.deepEqual(
    codes.filter((code) => !Object.hasOwn(CONDITIONS, code)),
    []
  )
})

test('every alert says on which node, in one line, and what to look at', () => {
  for (const { alert, annotations } of rules) {
    assert.ok(annotations.summary && annotations.description, alert)
    if (!/^Weft(LeasesDiffer)$/.test(alert)) assert.match(annotations.summary, /\{\{ \$labels\.node \}\}/, alert)
  }
})

test('every panel says what it shows', () => {
  for (const { title, description = '' } of dashboard.panels) assert.ok(description.length > 10, title)
})
