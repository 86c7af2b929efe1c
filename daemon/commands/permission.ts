// Whether this node runs the commands of a network configuration: only what its own administrator allows by flag.
import type { Command, Commands } from '../backend/backend.ts'
import { WeftError } from '../base/error.ts'
import { shortened } from '../base/printable.ts'
import { parseWords, ShellSyntax } from './words.ts'

export type Permission = {
  /** --allow-extension. */
  readonly commands: boolean
  /** --allow-extension-shell. */
  readonly shell: boolean
}

export const commandsOf = ({
  beforeLease,
  afterLease,
  peerAdded,
  peerRemoved,
  shutdown
}: Commands): readonly Command[] =>
  [beforeLease, afterLease, peerAdded, peerRemoved, shutdown].filter((command) => command !== undefined)

/** Errors: CONFIG_INVALID naming the command that this node does not run, and the flag. */
export function permit(commands: Commands | undefined, { commands: isAllowed, shell }: Permission): void {
  if (commands === undefined) return
  const all = commandsOf(commands)
  const [first] = all
  if (first === undefined) return
  if (!isAllowed)
    throw new WeftError(
      'CONFIG_INVALID',
      `${all.map(({ key }) => key).join(', ')}: this node does not run commands from the network configuration, since whoever may write that would be root here`,
      'start weftd with --allow-extension on this node, or choose another Backend.Type'
    )
  if (!shell) for (const command of all) refuseShell(command)
}

function refuseShell({ key, text }: Command): void {
  try {
    parseWords(text)
  } catch (error) {
    if (!(error instanceof ShellSyntax)) throw error
    throw new WeftError(
      'CONFIG_INVALID',
      `${key} is ${JSON.stringify(shortened(text))}: it ${error.message}, and this node runs commands without one`,
      'put the command into a script on each node and name that, quote what is meant literally, or start weftd with --allow-extension-shell as well'
    )
  }
}
