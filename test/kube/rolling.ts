// Traffic between two pods while something happens to the cluster: pings every 5 ms, and a TCP connection that is asked
// every second whether bytes still arrive.
import type { Place } from '../lab/lab-scene.ts'
import { until } from '../lab/run.ts'

type Report = {
  readonly error?: string
  readonly intervals: readonly { readonly sum: { readonly bytes: number; readonly seconds: number } }[]
}

/**
 * Sends over one TCP connection from one place to another while `during` runs, and counts the bytes that arrived in
 * each second of it. It is never opened a second time.
 */
export async function transferDuring<T>(
  from: Place,
  to: Place,
  address: string,
  during: () => Promise<T>
): Promise<{ readonly value: T; readonly perSecond: readonly number[] }> {
  const server = to.spawn('iperf3', ['--server', '--one-off', '--json', '--interval', '1'], { name: 'iperf3-server' })
  const listening = async () => /:5201\s/.test((await to.exec('ss', ['--listening', '--tcp', '--numeric'])).stdout)
  await until(listening, { what: `iperf3 to listen in ${to.name}`, deadlineMs: 20_000, everyMs: 50 })
  // As fast as a video, so that two processors have time for everything else.
  const words = ['--client', address, '--time', '600', '--bitrate', '20M', '--json']
  const client = from.spawn('iperf3', words, { name: 'iperf3-client' })
  const connected = async () =>
    /:5201\s/.test((await from.exec('ss', ['--tcp', '--numeric', 'state', 'established'])).stdout)
  await until(connected, { what: `a connection to ${address}`, deadlineMs: 20_000, everyMs: 50 })
  const value = await during()
  // An interrupted client tells the server that it ends, and the server reports.
  client.kill('SIGINT')
  await client.exited()
  await until(() => server.ended, { what: 'iperf3 to report', deadlineMs: 20_000 })
  const report = JSON.parse(server.text()) as Report
  // The last interval is the one that was interrupted.
  const perSecond = report.intervals.slice(0, -1).map(({ sum }) => sum.bytes)
  if (perSecond.length === 0) throw new Error(`iperf3 says nothing of the transfer: ${report.error}`)
  return { value, perSecond }
}
