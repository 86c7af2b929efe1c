// Number of cases and seed of a fuzz run; a failing case is reported with the variables that repeat it.
import assert from 'node:assert/strict'
import { Random } from './random.ts'

/** Cases of the whole suite; scripts/run-tests.ts sets a small number when the suite is one among others. */
const DEFAULT_CASES = 500_000

const wished = Number(process.env.WEFT_FUZZ_CASES ?? DEFAULT_CASES)
assert.ok(Number.isInteger(wished) && wished > 0, `WEFT_FUZZ_CASES must be a whole number above 0: ${wished}`)

export const totalCases = wished
export const seed = process.env.WEFT_FUZZ_SEED ?? String(Date.now() % 1_000_000_007)
const only = process.env.WEFT_FUZZ_CASE

process.stdout.write(`WEFT_FUZZ_SEED=${seed} WEFT_FUZZ_CASES=${wished}\n`)

/** The number of cases that a share (0 to 1) of the whole is, at least `least`. */
export const casesOf = (share: number, least = 20): number => Math.max(least, Math.round(totalCases * share))

/** The random numbers of one case. */
export const randomOf = (name: string, index: number): Random => new Random(`${seed} ${name} ${index}`)

/** What was thrown, with the way to throw it again. */
const failure = (name: string, index: number, cause: unknown): Error =>
  new Error(
    `case ${index} of "${name}" fails: make it again with WEFT_FUZZ_SEED=${seed} WEFT_FUZZ_CASE=${index}: ${cause instanceof Error ? cause.message : String(cause)}`,
    { cause }
  )

/** The indexes to run: all, or the one of WEFT_FUZZ_CASE. */
function indexes(cases: number): readonly number[] {
  return only === undefined ? Array.from({ length: cases }, (_, index) => index) : [Number(only)]
}

/** Runs cases that need no waiting, one after the other. */
export function campaign(name: string, cases: number, run: (random: Random, index: number) => void): void {
  for (const index of indexes(cases)) {
    try {
      run(randomOf(name, index), index)
    } catch (cause) {
      throw failure(name, index, cause)
    }
  }
}

/**
 * Runs cases that wait, `together` at a time; the first that fails ends the campaign once the others under way have
 * ended.
 */
export async function campaignOf(
  name: string,
  cases: number,
  together: number,
  run: (random: Random, index: number) => Promise<void>
): Promise<void> {
  const left = indexes(cases)[Symbol.iterator]()
  let failed: Error | undefined
  const worker = async () => {
    for (let next = left.next(); !next.done && failed === undefined; next = left.next()) {
      try {
        await run(randomOf(name, next.value), next.value)
      } catch (cause) {
        failed ??= failure(name, next.value, cause)
      }
    }
  }
  await Promise.all(Array.from({ length: together }, worker))
  if (failed !== undefined) throw failed
}
