// weftd's command line and environment as Options, or what is wrong with them, all of it at once; and what --help and --version print.
import { WeftError } from '../base/error.ts'
import { byFamily, type Parsed, parseFlags, printFlags, writtenAs } from './flag-parser.ts'
import { FLAGS, GROUPS, type Options, PREFIXES } from './flag-table.ts'

export type ParsedOptions =
  | {
      readonly kind: 'run'
      readonly options: Options
      /** What is wrong with the environment's variables, for the condition VARIABLE_UNKNOWN. */
      readonly strangers: readonly string[]
    }
  /** `weftd man`, `weftd completion SHELL`: printed by ctl/run.ts. */
  | { readonly kind: 'page' }
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | { readonly kind: 'wrong'; readonly errors: readonly WeftError[] }

/** Reads weftd's command line (without program and script) and environment. All faults are reported together. */
export function parseOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>
): ParsedOptions {
  // Whoever asks for help may have the rest wrong.
  if (argv.some((word) => /^--?(h|help)$/.test(word))) return { kind: 'help' }
  if (argv[0] === 'man' || argv[0] === 'completion') return { kind: 'page' }
  const parsed = parseFlags(FLAGS, PREFIXES, argv, env)
  if ('errors' in parsed) return { kind: 'wrong', errors: parsed.errors }
  const { publicIp, publicIpv6, kubeSubnetMgr, help, version, ...rest } = parsed.values
  if (help) return { kind: 'help' }
  if (version) return { kind: 'version' }
  const errors = contradictions(parsed)
  if (errors.length > 0) return { kind: 'wrong', errors }
  const options = {
    ...rest,
    store: kubeSubnetMgr ? 'kubernetes' : rest.store,
    given: parsed.given,
    etcdPrefix: rest.etcdPrefix.replace(/\/+$/, ''),
    publicIp: byFamily(publicIp, publicIpv6)
  } as const
  return { kind: 'run', options, strangers: parsed.strangers }
}

function contradictions({ values, given }: Parsed<typeof FLAGS>): readonly WeftError[] {
  const errors: WeftError[] = []
  const as = (name: string) => writtenAs(given, name)
  const wrong = (message: string, cure: string) => errors.push(new WeftError('OPTION_INVALID', message, cure))
  if (values.kubeSubnetMgr && given.has('store') && values.store !== 'kubernetes') {
    wrong(
      `${as('kube-subnet-mgr')} asks for the Kubernetes API, ${as('store')} for ${values.store}`,
      'give one of them'
    )
  }
  if ((values.etcdCertfile === undefined) !== (values.etcdKeyfile === undefined)) {
    const [there, missing] = values.etcdKeyfile === undefined ? ['certfile', 'keyfile'] : ['keyfile', 'certfile']
    wrong(`${as(`etcd-${there}`)} is given without --etcd-${missing}`, 'a client certificate needs both')
  }
  if (values.etcdPassword !== undefined && values.etcdUsername === undefined) {
    wrong(`${as('etcd-password')} is given without --etcd-username`, 'give both')
  }
  if (new Set(values.etcdEndpoints.map((endpoint) => endpoint.split(':')[0])).size > 1) {
    wrong(`${as('etcd-endpoints')} mixes http and https: ${values.etcdEndpoints.join(',')}`, 'write one scheme for all')
  }
  return errors
}

const INTRODUCTION = `weftd leases this node a subnet, joins it with those of the other nodes and gives pods their addresses.

Usage: weftd [--flag=value …]
       weftd install [--flag=value …]   puts the plugins where the runtime looks for them; weftd install --help
       weftd clean [--flag=value …]     takes what is Weft's off this node, where no weftd runs; weftd clean --help
       weftd man
       weftd completion bash|zsh|fish

Flags have one dash or two, and \`=\` or a space before the value. Each is also read from the environment, as WEFTD_ or FLANNELD_ with
the name in upper case and _ for -: WEFTD_ETCD_ENDPOINTS. The command line wins over WEFTD_, WEFTD_ over FLANNELD_.`

/** The text of --help; `width` in columns. */
export const printHelp = (width: number): string => `${INTRODUCTION}\n\n${printFlags(FLAGS, GROUPS, width)}\n`

/** The line of --version. */
export const printVersion = (program: string, version: string): string => `${program} ${version}\n`
