// A weftd udp-proxy of another version, which takes over from the one that runs: what is there before an upgrade.
import { pino } from 'pino'
import { proxyPath } from '../../daemon/udp/connection.ts'
import { runProxy } from '../../daemon/udp/server.ts'

const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
await runProxy({ path: proxyPath('/run/weft'), version: '0.0.0', replace: true, log: pino() }, stop.signal)
process.exit(0)
