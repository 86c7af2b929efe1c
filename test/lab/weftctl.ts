// weftctl on a host of the lab.
import type { Host } from './host.ts'
import type { RunOptions } from './run.ts'
import { weftdCommand } from './weftd.ts'

/** As weftd is run: from source, or the single file under its other name. */
export function weftctlCommand(name = 'weftctl'): readonly [string, ...string[]] {
  const [program, ...words] = weftdCommand()
  return words.length === 0
    ? [program.replace(/weftd$/, name)]
    : [program, ...words.map((word) => word.replace(/daemon\/main\.ts$/, 'daemon/ctl/main.ts'))]
}

export async function weftctl(
  host: Host,
  words: readonly string[],
  options: RunOptions & { readonly as?: number } = {}
) {
  const { as, ...rest } = options
  const user = as === undefined ? [] : ['setpriv', `--reuid=${as}`, `--regid=${as}`, '--clear-groups']
  const [program = '', ...all] = [...user, ...weftctlCommand(), ...words]
  const { code, stdout, stderr } = await host.exec(program, all, { check: false, timeoutMs: 60_000, ...rest })
  return { code, stdout, stderr }
}
