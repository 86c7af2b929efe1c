// The log as the daemon's parts see it: pino's four levels, handed in and never imported.

/** Constant message, data as fields. error: somebody must act; warn: we are coping; info: the network changed; debug: what was compared. */
export type Log = {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
}
