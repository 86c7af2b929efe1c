// Applies many firewall changes as one transaction; if the kernel refuses some, finds out which and applies the others.
import { reasonOf, WeftError } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import { textOf } from '../../state/text.ts'
import { putElement, refusedSteps, type Step, transaction } from './command.ts'
import type { NftResult, RunNft } from './session.ts'

/**
 * A refused transaction of at most this many steps is searched by its error messages, each of which repeats the whole
 * text. Longer ones are halved.
 */
const SEARCHED = 64

/**
 * Errors by change; changes without an entry are done. Each failing transaction takes the kernel some 10 ms (it waits
 * for readers before it rolls back).
 */
export type Failures = Map<Change, Error>

export async function applySteps(run: RunNft, steps: readonly Step[]): Promise<Failures> {
  const failures: Failures = new Map()
  await attempt(run, steps, failures)
  return failures
}

async function attempt(run: RunNft, steps: readonly Step[], failures: Failures): Promise<void> {
  let rest = steps.filter((step) => step.commands.length > 0)
  while (rest.length > 0) {
    const { text, stepAt } = transaction(rest)
    const result = await runOrComplain(run, text)
    if (result.done) return
    if (rest.length > SEARCHED) {
      const half = Math.ceil(rest.length / 2)
      await attempt(run, rest.slice(0, half), failures)
      await attempt(run, rest.slice(half), failures)
      return
    }
    const refused = refusedSteps(result.complaints, stepAt)
    const words = result.complaints.map((one) => one.words).join('; ')
    if (refused.size === 0) {
      if (rest.length > 1) for (const step of rest) await attempt(run, [step], failures)
      else for (const step of rest) failures.set(step.change, refusal(step, words))
      return
    }
    rest = rest.flatMap((step) => afterRefusal(step, refused.get(step), failures))
  }
}

async function runOrComplain(run: RunNft, text: string): Promise<NftResult> {
  try {
    return await run(text)
  } catch (error) {
    return { done: false, complaints: [{ words: reasonOf(error), at: -1 }] }
  }
}

/** What to try next for a step: itself if it was not refused, other commands if there are any, otherwise nothing. */
function afterRefusal(step: Step, words: string | undefined, failures: Failures): readonly Step[] {
  if (words === undefined) return [step]
  const { change } = step
  const missing = words.includes('No such file or directory')
  if (change.do === 'remove' && missing) return removedInPart(step)
  if (change.object.kind === 'nft-element' && change.do === 'put') {
    const replaces = step.commands.length > 1
    // It exists with another value: replace it. It was to be replaced, but does not exist: add it.
    if (words.includes('File exists') && !replaces) return [{ change, commands: putElement(change.object, true) }]
    if (missing && replaces) return [{ change, commands: putElement(change.object, false) }]
  }
  failures.set(change, refusal(step, words))
  return []
}

/**
 * One of several calls to be deleted may no longer exist; any other object that does not exist is removed already.
 */
function removedInPart(step: Step): readonly Step[] {
  if (step.change.object.kind !== 'admin-call' || step.commands.length < 2) return []
  return [{ ...step, commands: step.commands.slice(1) }]
}

function refusal(step: Step, words: string): WeftError {
  const verb = step.change.do === 'put' ? 'set up' : 'remove'
  return new WeftError(
    'KERNEL_REFUSED',
    `the kernel refused to ${verb} ${textOf(step.change.object)}: ${words} (nft ${step.commands.join('; ')})`,
    words.includes('Operation not permitted')
      ? 'run weftd as root or with CAP_NET_ADMIN'
      : 'run the quoted commands with nft as root; if they need a module (nf_tables, nft_masq, nft_nat), load it'
  )
}
