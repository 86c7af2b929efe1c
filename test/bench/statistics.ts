// Medians, spread and ratios of measurements, and the markdown table they are reported in.
export interface Summary {
  readonly count: number
  readonly median: number
  readonly p10: number
  readonly p90: number
  readonly p99: number
}

/** The q-quantile (0…1) with linear interpolation between neighbours; NaN without values. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? Number.NaN
  return low + (high - low) * (at - Math.floor(at))
}

export function summary(values: readonly number[]): Summary {
  return {
    count: values.length,
    median: quantile(values, 0.5),
    p10: quantile(values, 0.1),
    p90: quantile(values, 0.9),
    p99: quantile(values, 0.99)
  }
}

export interface Row {
  readonly what: string
  readonly unit: string
  readonly ours: readonly number[]
  readonly peer: readonly number[]
  /** The design's target, in its words. */
  readonly target: string
  /** Compare these instead of medians; medians when absent. */
  readonly by?: 'median' | 'p99'
  readonly note?: string
}

/** Three significant digits, whole numbers from 1,000 on with thousands set apart. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '–'
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}

function cell(values: readonly number[], by: 'median' | 'p99'): string {
  if (values.length === 0) return '–'
  const { median, p10, p90, p99 } = summary(values)
  if (values.length === 1) return figure(median)
  const spread = `${figure(p10)}–${figure(p90)}`
  return by === 'p99' ? `p99 ${figure(p99)}, median ${figure(median)}` : `${figure(median)} (${spread})`
}

/** Ours over the peer's, as "1/12.3" or "2.1 times"; better-is-more rows read the same way round. */
export function ratio(row: Row): string {
  const by = row.by ?? 'median'
  const ours = summary(row.ours)[by]
  const peer = summary(row.peer)[by]
  if (!Number.isFinite(ours) || !Number.isFinite(peer) || ours === 0 || peer === 0) return '–'
  const times = ours / peer
  return times < 1 ? `1/${figure(1 / times)}` : `${figure(times)} times`
}

/** A markdown table: one line for each row that was measured, median with 10th–90th percentile in brackets. */
export function table(rows: readonly Row[]): string {
  const head =
    '| what | unit | weft | peer | weft : peer | target | rounds |\n| --- | --- | --- | --- | --- | --- | --- |'
  const measured = rows.filter(({ ours, peer }) => ours.length + peer.length > 0)
  const lines = measured.map((row) => {
    const by = row.by ?? 'median'
    const rounds = `${row.ours.length}/${row.peer.length}`
    const what = row.note ? `${row.what} (${row.note})` : row.what
    return `| ${what} | ${row.unit} | ${cell(row.ours, by)} | ${cell(row.peer, by)} | ${ratio(row)} | ${row.target} | ${rounds} |`
  })
  return [head, ...lines].join('\n')
}
