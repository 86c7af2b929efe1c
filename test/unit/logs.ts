// Logs of the unit tests: one that says nothing, and one that hands every line on.
import type { Log } from '../../daemon/base/log.ts'

export const silent: Log = { error() {}, warn() {}, info() {}, debug() {} }

export function heard(line: (level: keyof Log, fields: object, message: string) => void): Log {
  const at = (level: keyof Log) => (fields: object, message: string) => line(level, fields, message)
  return { error: at('error'), warn: at('warn'), info: at('info'), debug: at('debug') }
}
