// The registry of metrics and the rules of their names; each counter is defined beside what it counts, through
// createMetrics().
import { readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
// Not the package's index: it brings cluster and the default collectors, 12 MB of resident memory (17 against 5, Node
// 26, November 2026).
import Counter from 'prom-client/lib/counter.js'
import Gauge from 'prom-client/lib/gauge.js'
import Histogram from 'prom-client/lib/histogram.js'
import Registry from 'prom-client/lib/registry.js'
import { CONDITIONS, type ConditionCode } from './conditions.ts'
import type { Health } from './health.ts'

export type { Counter, Gauge, Histogram, Registry }

/** How long one step of an ADD, a batch or a store's answer takes: 0.1 ms to 10 s. */
const STEPS_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

export type Metrics = {
  readonly registry: Registry
  /**
   * Something that only grows; ends in `_total`. `collect` is called before each scrape, for what is counted elsewhere.
   */
  counter<L extends string = never>(
    name: string,
    help: string,
    labels?: readonly L[],
    collect?: (counter: Counter<L>) => void
  ): Counter<L>
  /** `collect` is called before each scrape, to set what is only known then. */
  gauge<L extends string = never>(
    name: string,
    help: string,
    labels?: readonly L[],
    collect?: (gauge: Gauge<L>) => void
  ): Gauge<L>
  /** Durations in seconds unless `buckets` are given; ends in `_seconds` or `_bytes`. */
  histogram<L extends string = never>(
    name: string,
    help: string,
    labels?: readonly L[],
    buckets?: readonly number[]
  ): Histogram<L>
}

/**
 * A registry of its own, so that two daemons in one test process do not share counters. Errors: a name or label against
 * the house's rules.
 */
export function createMetrics(): Metrics {
  const registry = new Registry()
  const base = <L extends string>(name: string, help: string, labels: readonly L[]) => {
    checkName(name, labels)
    return { name, help, labelNames: labels, registers: [registry] }
  }
  return {
    registry,
    counter(name, help, labels = [], collect) {
      if (!name.endsWith('_total')) throw new Error(`the counter ${name} must end in _total`)
      return new Counter({ ...base(name, help, labels), ...collecting(collect) })
    },
    gauge(name, help, labels = [], collect) {
      if (name.endsWith('_total')) throw new Error(`the gauge ${name} must not end in _total`)
      return new Gauge({ ...base(name, help, labels), ...collecting(collect) })
    },
    histogram(name, help, labels = [], buckets = STEPS_SECONDS) {
      if (!/_(seconds|bytes)$/.test(name)) throw new Error(`the histogram ${name} must end in _seconds or _bytes`)
      return new Histogram({ ...base(name, help, labels), buckets: [...buckets] })
    }
  }
}

/** prom-client hands the metric over as `this`. */
function collecting<M>(collect: ((metric: M) => void) | undefined): { collect?: (this: M) => void } {
  if (collect === undefined) return {}
  return {
    collect() {
      collect(this)
    }
  }
}

/** Units that Prometheus expects as seconds, bytes and ratios: https://prometheus.io/docs/practices/naming/ */
const OTHER_UNITS =
  /_(ms|milliseconds|microseconds|nanoseconds|minutes|hours|kb|mb|kilobytes|megabytes|bits|percent)(_|$)/
/** One series for each of these would grow with the cluster. */
const UNBOUNDED = new Set(['peer', 'pod', 'node', 'lease', 'subnet', 'address', 'container', 'netns'])

function checkName(name: string, labels: readonly string[]): void {
  if (!/^weft_[a-z0-9_]+$/.test(name)) throw new Error(`the metric ${name} must begin with weft_ and be in lower case`)
  if (OTHER_UNITS.test(name)) throw new Error(`the metric ${name} must be in base units: seconds, bytes, ratio`)
  const unbounded = labels.find((label) => UNBOUNDED.has(label))
  if (unbounded !== undefined) throw new Error(`the metric ${name} would have a series for each ${unbounded}`)
}

/** What the process itself costs, read when somebody asks: nothing runs between two scrapes. */
export function observeProcess(metrics: Metrics, version: string): void {
  const gauge = (name: string, help: string, value: () => number) =>
    metrics.gauge(name, help, [], (self) => self.set(value()))
  metrics
    .gauge('weft_build_info', 'Always 1; the labels have the version.', ['version', 'runtime'])
    .set({ version, runtime: process.version }, 1)
  gauge(
    'weft_process_start_time_seconds',
    'Start time of the process, in seconds since 1970.',
    () => performance.timeOrigin / 1000
  )
  gauge('weft_process_resident_memory_bytes', 'Resident memory, including clean pages of the executable.', () =>
    resident('VmRSS')
  )
  gauge('weft_process_anonymous_memory_bytes', 'Resident anonymous memory: what the process itself costs.', () =>
    resident('RssAnon')
  )
  gauge('weft_process_heap_used_bytes', 'JavaScript heap in use.', () => process.memoryUsage().heapUsed)
  rising(metrics, 'weft_process_cpu_seconds_total', 'CPU time, user and system.', () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e6
  })
  // Its rate is the share of time in which nothing else could run. A histogram of delays would need a timer that wakes
  // an idle daemon.
  rising(metrics, 'weft_event_loop_busy_seconds_total', 'Time the event loop spent running callbacks.', () => {
    return performance.eventLoopUtilization().active / 1000
  })
}

/** A counter that is read off somewhere else. */
function rising(metrics: Metrics, name: string, help: string, read: () => number): void {
  let before = 0
  metrics.counter(name, help, [], (counter) => {
    const now = read()
    counter.inc(Math.max(0, now - before))
    before = now
  })
}

/** A line of /proc/self/status in bytes (proc_pid_status(5): the file is in kB). */
function resident(line: 'VmRSS' | 'RssAnon'): number {
  const kilobytes = new RegExp(`^${line}:\\s+(\\d+) kB$`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return Number(kilobytes ?? 0) * 1024
}

/** One series per row of the table of conditions: 1 while it holds. */
export function observeHealth(metrics: Metrics, health: Pick<Health, 'codes'>): void {
  metrics.gauge('weft_condition', '1 while the condition is active.', ['code', 'severity'], (gauge) => {
    const holding = new Set<string>(health.codes)
    for (const code of Object.keys(CONDITIONS) as ConditionCode[]) {
      gauge.set({ code, severity: CONDITIONS[code].severity }, holding.has(code) ? 1 : 0)
    }
  })
}
