// Parses CNI_ARGS, `K=V;K2=V2`: what the runtime passes about the container besides the configuration (cni.md 1.5,
// 1.10).
import { CniError, cniCode } from './error.ts'
import { shown } from './field.ts'

export type Args = ReadonlyMap<string, string>

/**
 * Parses the text; a key outside `known` is an error unless `IgnoreUnknown` is 1 or true. Keys are case-sensitive; of
 * repeated ones the last counts.
 */
export function parseArgs(written: string, known: readonly string[]): Args {
  const args = new Map<string, string>()
  for (const pair of written === '' ? [] : written.split(';')) {
    const [key, value, ...rest] = pair.split('=')
    if (key === undefined || value === undefined || rest.length > 0) {
      throw new CniError(`CNI_ARGS: invalid pair ${shown(pair)}`, {
        code: cniCode.environment,
        details: `each pair must have exactly one "=": CNI_ARGS is ${shown(written)}`
      })
    }
    args.set(key, value)
  }
  const mayBeUnknown = ignoresUnknown(args)
  const unknown = [...args.keys()].filter((key) => key !== 'IgnoreUnknown' && !known.includes(key))
  if (unknown.length > 0 && !mayBeUnknown) {
    throw new CniError(`CNI_ARGS: unknown key ${unknown.map(shown).join(', ')}`, {
      code: cniCode.environment,
      details: `known are ${known.join(', ')}; IgnoreUnknown=1 allows others`
    })
  }
  return args
}

function ignoresUnknown(args: Args): boolean {
  const written = (args.get('IgnoreUnknown') ?? '0').toLowerCase()
  if (!['0', '1', 'false', 'true'].includes(written)) {
    throw new CniError(`CNI_ARGS: IgnoreUnknown=${written}`, {
      code: cniCode.environment,
      details: 'must be 0, 1, false or true'
    })
  }
  return written === '1' || written === 'true'
}

/**
 * Characters of a Kubernetes object's name (RFC 1123). Runtimes of others may pass anything, which is kept and shown.
 */
export const LONGEST_NAME = 253
