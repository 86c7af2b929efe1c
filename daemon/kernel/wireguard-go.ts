// Starts wireguard-go, which makes the devices of a kernel without WireGuard and serves them in a process of its own.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { toError, WeftError } from '../base/error.ts'
import type { Change } from '../state/difference.ts'
import type { Outcome } from '../state/kernel.ts'

/** Milliseconds for it to make its device: the process that is started ends then, and another one stays. */
const START = 10_000

/** Makes a device; its process goes on without weftd, and ends when the device is deleted. Errors: WIREGUARD_GO. */
export async function startWireguardGo(executable: string, device: string): Promise<void> {
  try {
    const child = spawn(executable, [device], { stdio: 'ignore', detached: true, timeout: START })
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null]
    if (code !== 0) throw new Error(signal === null ? `exit status ${code}` : `ended by ${signal}`)
  } catch (cause) {
    throw new WeftError(
      'WIREGUARD_GO',
      `${executable} did not make the device ${device}: ${toError(cause).message}`,
      `check that ${executable} can be executed and that /dev/net/tun exists`,
      { cause }
    )
  }
}

type Starter = { isUserspace(): Promise<boolean>; start(device: string): Promise<void> }

const isItsPart = ({ do: what, object, instead }: Change): boolean =>
  what === 'put' && object.kind === 'link' && object.form?.type === 'wireguard' && instead === undefined

/**
 * Applies changes by rtnetlink (`apply`, which answers in order). What wireguard-go has to make is made by it first,
 * and then changed like any link that exists.
 */
export async function applyStarted(
  changes: readonly Change[],
  starter: Starter | undefined,
  apply: (changes: readonly Change[]) => Promise<readonly Outcome[]>
): Promise<readonly Outcome[]> {
  if (starter === undefined || !changes.some(isItsPart) || !(await starter.isUserspace())) return apply(changes)
  const errors = new Map<Change, Error>()
  const planned = new Map<Change, Change>()
  for (const change of changes) {
    const { object } = change
    if (object.kind !== 'link' || !isItsPart(change)) planned.set(change, change)
    else
      await starter.start(object.name).then(
        () => planned.set(change, { do: 'put', object, instead: { kind: 'link', name: object.name } }),
        (error: unknown) => errors.set(change, toError(error))
      )
  }
  const outcomes = await apply([...planned.values()])
  for (const [at, change] of [...planned.keys()].entries()) {
    const error = outcomes[at]?.error
    if (error !== undefined) errors.set(change, error)
  }
  return changes.map((change) => {
    const error = errors.get(change)
    return error === undefined ? { change } : { change, error }
  })
}
