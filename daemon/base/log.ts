// The logger interface that is passed to the daemon's parts: four of pino's levels.

/**
 * The message is constant, data are fields. error: an administrator must act; warn: weftd copes; info: the network
 * changed; debug: what was compared.
 */
export type Log = {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
}
