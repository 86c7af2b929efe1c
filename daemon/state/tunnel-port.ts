// The process that serves a TUN device, as the kernel port sees it.
import type { Change } from './difference.ts'
import type { Outcome } from './kernel.ts'
import type { TunnelObject } from './tunnel.ts'

/**
 * What has been applied counts as there: whoever implements this keeps it until
 * the process has it, also over a restart of the process.
 */
export type TunnelPort = {
  read(): readonly TunnelObject[]
  /** One outcome for each change, in their order. Never rejects. */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
}
