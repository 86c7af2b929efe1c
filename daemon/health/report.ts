// Interface by which parts of the daemon report conditions, without access to the registry.
import type { ConditionCode } from './conditions.ts'

/**
 * Raises or clears a condition of the table by its code. `cure` replaces the table's where the cause has a more
 * specific one.
 */
export type Report = {
  raise(code: ConditionCode, detail: string, cure?: string): void
  clear(code: ConditionCode): void
}
