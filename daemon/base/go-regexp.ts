// Regular expressions in Go's syntax (RE2), for patterns that were written for flanneld and the reference plugins:
// (?i), [[:digit:]], \z mean other things, or nothing, in JavaScript, and RE2 needs linear time whatever the pattern.

export type GoPattern = {
  /** As regexp.MatchString: anywhere in the text. */
  test(text: string): boolean
}

/** Errors: with Go's reason why the pattern is not valid. */
export type CompileGo = (source: string) => GoPattern

/** Loads the engine (30 ms, 7 MB), so that only those who have a pattern pay for it. */
export async function loadGoRegexp(): Promise<CompileGo> {
  const { RE2JS } = await import('re2js')
  return (source) => {
    const pattern = RE2JS.compile(source)
    return { test: (text) => pattern.matcher(text).find() }
  }
}
