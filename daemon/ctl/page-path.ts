// Asks about the path from a pod to a pod, as the page's form does: hop by hop where weftd follows ways, and otherwise
// what each node knows of its part.
import { reasonOf, WeftError } from '../base/error.ts'
import { printable, printableValue } from '../base/printable.ts'
import type { Asking } from './command.ts'
import type { Asked } from './page/facts.ts'
import { hopsOf, type PathPart, pathView } from './page/path-view.ts'
import type { PathView } from './page/view-types.ts'
import { askRemote, nodeOfPod } from './remote.ts'
import { why } from './why.ts'

/** Names, addresses and container ids: nothing that kubectl would take for a flag. */
const NAME = /^[\w:[][\w.:/[\]-]{0,300}$/

/** `asked`: for the addresses of pods. Errors: COMMAND_UNKNOWN for what is no name. */
export async function followPath(asking: Asking, asked: readonly Asked[], from: string, to: string): Promise<PathView> {
  for (const name of [from, to])
    if (!NAME.test(name))
      throw new WeftError(
        'COMMAND_UNKNOWN',
        `${JSON.stringify(name.slice(0, 80))} is no name of a pod and no address`,
        'write namespace/name, or an address'
      )
  const out = await wayPart(asking, asked, from, to)
  if (out === undefined) return pathView(await plainParts(asking, asked, from, to))
  const back = isAddress(to) ? undefined : await wayPart(asking, asked, to, from)
  return pathView([out, ...(back === undefined ? [] : [back])])
}

const isAddress = (name: string): boolean => /^[\d.]+$/.test(name) || name.includes(':')

/** Without its prefix length. */
function addressOf(asked: readonly Asked[], name: string): string | undefined {
  if (isAddress(name)) return name
  const found = asked.flatMap(({ facts }) => facts?.pods?.pods ?? []).find(({ pod }) => pod === name)
  return found?.addresses[0]?.replace(/\/.*/, '')
}

/** On the node of the pod. */
const askOnNodeOf = async ({ ask, kubectl }: Asking, pod: string, args: readonly string[]): Promise<unknown> =>
  printableValue(
    kubectl === undefined
      ? await ask('why', args)
      : await askRemote(kubectl, await nodeOfPod(kubectl, pod), 'why', args)
  )

/** `undefined` where weftd follows no ways, or does not know the pod. */
async function wayPart(
  asking: Asking,
  asked: readonly Asked[],
  from: string,
  to: string
): Promise<PathPart | undefined> {
  const address = addressOf(asked, to)
  const end = address === undefined ? ['pod', to] : ['address', address]
  try {
    const hops = hopsOf(await askOnNodeOf(asking, from, ['pod', from, 'to', ...end]))
    return hops && { heading: `${from} to ${to}`, hops, isWrong: hops.some(({ mark }) => mark.tone === 'bad') }
  } catch {
    return undefined
  }
}

/** What the node of each pod knows of it, and the first node of the other. */
function plainParts(asking: Asking, asked: readonly Asked[], from: string, to: string): Promise<readonly PathPart[]> {
  const part = async (heading: string, pod: string, args: readonly string[]): Promise<PathPart> => {
    try {
      const { text, exit } = why.read(await askOnNodeOf(asking, pod, args), args)
      return { heading, text, isWrong: exit !== 0 }
    } catch (error) {
      return { heading, text: printable(reasonOf(error)), isWrong: true }
    }
  }
  const address = addressOf(asked, to)
  return Promise.all([
    part(`${from}, on its node`, from, ['pod', from]),
    address === undefined
      ? { heading: `From its node to ${to}`, text: 'its address is not known here: write that instead', isWrong: true }
      : part(`From its node to ${address}`, from, ['node', address]),
    ...(isAddress(to) ? [] : [part(`${to}, on its node`, to, ['pod', to])])
  ])
}
