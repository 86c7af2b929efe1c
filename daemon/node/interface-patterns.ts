// Compiles the patterns of --iface-regex before anything starts, so that a wrong one is refused like any other flag.
import { reasonOf, WeftError } from '../base/error.ts'
import { type CompileGo, loadGoRegexp } from '../base/go-regexp.ts'

/** The compiler, or an error for each pattern that is none. `as` is how the user set them: the flag or a variable. */
export async function interfacePatterns(
  sources: readonly string[],
  as: string
): Promise<CompileGo | readonly WeftError[]> {
  // Never called without a pattern.
  if (sources.length === 0) return (source) => new RegExp(source)
  const compile = await loadGoRegexp()
  const errors = sources.flatMap((source) => {
    try {
      compile(source)
      return []
    } catch (cause) {
      const message = `${as} is ${JSON.stringify(source)}, but must be a regular expression in the syntax of Go (RE2): ${reasonOf(cause)}`
      return [new WeftError('OPTION_INVALID', message, 'correct or omit it', { cause })]
    }
  })
  return errors.length === 0 ? compile : errors
}
