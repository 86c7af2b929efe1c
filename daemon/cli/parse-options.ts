// Parses weftd's command line and environment into Options, or returns all errors at once; prints --help and --version.
import { WeftError } from '../base/error.ts'
import { byFamily, type Parsed, parseFlags, printFlags, type UnknownVariable, writtenAs } from './flag-parser.ts'
import { FLAGS, GROUPS, type Options, PREFIXES } from './flag-table.ts'

export type ParsedOptions =
  | {
      readonly kind: 'run'
      readonly options: Options
      /** For the condition VARIABLE_UNKNOWN. */
      readonly unknownVariables: readonly UnknownVariable[]
      /** What is set and has no effect. */
      readonly warnings: readonly string[]
    }
  /** `weftd man`, `weftd completion SHELL`: printed by ctl/run.ts. */
  | { readonly kind: 'page' }
  | { readonly kind: 'help' }
  | { readonly kind: 'version' }
  | { readonly kind: 'wrong'; readonly errors: readonly WeftError[] }

/** Parses weftd's command line (without program and script) and environment. All errors are reported together. */
export function parseOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>
): ParsedOptions {
  // --help works even if the rest of the command line is wrong.
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
    setBy: parsed.setBy,
    etcdPrefix: joined(rest.etcdPrefix),
    etcdEndpoints: endpointsOf(rest),
    publicIp: byFamily(publicIp, publicIpv6)
  } as const
  const { unknownVariables, warnings } = parsed
  return { kind: 'run', options, unknownVariables, warnings }
}

/**
 * The prefix as flanneld's path.Join() writes it into keys: without `//`, `.` and a slash at its end. One without a
 * slash at its beginning gets none, so its keys are others.
 */
function joined(prefix: string): string {
  const steps = prefix.split('/').filter((step) => step !== '' && step !== '.')
  return `${prefix.startsWith('/') ? '/' : ''}${steps.join('/')}`.replace(/^\/$/, '')
}

/**
 * etcd's client takes HOST:PORT too, with TLS if it has a certificate. Here the authority suffices: where one is
 * configured, nothing may be sent in clear.
 */
function endpointsOf({ etcdEndpoints, etcdCafile, etcdCertfile, etcdKeyfile }: EtcdFlags): readonly string[] {
  const isSecure = [etcdCafile, etcdCertfile, etcdKeyfile].some((file) => file !== undefined)
  return etcdEndpoints.map((endpoint) =>
    hasScheme(endpoint) ? endpoint : `${isSecure ? 'https' : 'http'}://${endpoint}`
  )
}

type EtcdFlags = Pick<Parsed<typeof FLAGS>['values'], 'etcdEndpoints' | 'etcdCafile' | 'etcdCertfile' | 'etcdKeyfile'>

const hasScheme = (endpoint: string): boolean => /^https?:\/\//i.test(endpoint)

function contradictions({ values, setBy }: Parsed<typeof FLAGS>): readonly WeftError[] {
  const errors: WeftError[] = []
  const as = (name: string) => writtenAs(setBy, name)
  const wrong = (message: string, cure: string) => errors.push(new WeftError('OPTION_INVALID', message, cure))
  if (values.kubeSubnetMgr && setBy.has('store') && values.store !== 'kubernetes') {
    wrong(
      `${as('kube-subnet-mgr')} selects the Kubernetes API, ${as('store')} selects ${values.store}`,
      'set only one of them'
    )
  }
  if ((values.etcdCertfile === undefined) !== (values.etcdKeyfile === undefined)) {
    const [there, missing] = values.etcdKeyfile === undefined ? ['certfile', 'keyfile'] : ['keyfile', 'certfile']
    wrong(`${as(`etcd-${there}`)} is set without --etcd-${missing}`, 'set both: a client certificate needs its key')
  }
  if (values.etcdPassword !== undefined && values.etcdUsername === undefined) {
    wrong(`${as('etcd-password')} is set without --etcd-username`, 'set both')
  }
  if (new Set(endpointsOf(values).map((endpoint) => endpoint.split(':')[0]?.toLowerCase())).size > 1) {
    wrong(`${as('etcd-endpoints')} mixes http and https: ${values.etcdEndpoints.join(',')}`, 'use one scheme for all')
  }
  return errors
}

const INTRODUCTION = `weftd leases a subnet for this node, connects it with those of the other nodes and gives pods their addresses.

Usage: weftd [--flag=value …]
       weftd install [--flag=value …]   installs the CNI plugins; see weftd install --help
       weftd clean [--flag=value …]     removes Weft from this node once weftd has stopped; see weftd clean --help
       weftd man
       weftd completion bash|zsh|fish

Flags take one dash or two, and \`=\` or a space before the value. Each can also be set by a variable, WEFTD_ or FLANNELD_ and the
name in upper case with _ for -: WEFTD_ETCD_ENDPOINTS. The command line takes precedence over WEFTD_, and WEFTD_ over FLANNELD_.`

/** The text of --help; `width` in columns. */
export const printHelp = (width: number): string => `${INTRODUCTION}\n\n${printFlags(FLAGS, GROUPS, width)}\n`

/** The line of --version. */
export const printVersion = (program: string, version: string): string => `${program} ${version}\n`
