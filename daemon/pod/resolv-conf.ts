// Reads the DNS of a result from a resolv.conf(5) file: host-local's key `resolvConf`.
import type { Dns } from '../../plugins/attachment.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { PodContext } from './context.ts'

/** Errors: RESOLV_CONF_UNREADABLE with the path. */
export async function readResolvConf({ files }: Pick<PodContext, 'files'>, path: string): Promise<Dns> {
  try {
    return parseResolvConf(await files.text(path))
  } catch (cause) {
    throw new WeftError(
      'RESOLV_CONF_UNREADABLE',
      `ipam.resolvConf ${path} can't be read: ${reasonOf(cause)}`,
      'correct ipam.resolvConf in the CNI configuration: it must name a regular file of at most 64 KB on this host',
      { cause }
    )
  }
}

/**
 * Lines of nameserver, search and options add up; of several domain lines the last counts. Comments begin with # or ;.
 */
export function parseResolvConf(text: string): Dns {
  const found = { nameservers: [] as string[], search: [] as string[], options: [] as string[], domain: '' }
  for (const line of text.split('\n')) {
    const [word, ...values] = line.trim().split(/\s+/)
    const [first] = values
    if (first === undefined) continue
    if (word === 'nameserver') found.nameservers.push(first)
    else if (word === 'domain') found.domain = first
    else if (word === 'search' || word === 'options') found[word].push(...values)
  }
  const { domain, ...lists } = found
  const filled = Object.entries(lists).filter(([, list]) => list.length > 0)
  return { ...Object.fromEntries(filled), ...(domain === '' ? {} : { domain }) }
}
