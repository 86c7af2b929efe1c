// Where scripts/peers put the Go programs that Weft is tested against and measured with.
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** The folder with cni/ and bin/. Throws with the cure when it was never filled. */
export function peersDirectory(): string {
  const directory = join(process.env.WEFT_CACHE ?? join(homedir(), '.cache/weft'), 'peers')
  if (!existsSync(join(directory, 'versions')))
    throw new Error(`the Go peers are missing in ${directory}; cure: run scripts/peers`)
  return directory
}

/** Why a test that needs a program of scripts/peers can't run, or false. */
export function missingPeer(path: string): string | false {
  try {
    return existsSync(join(peersDirectory(), path)) ? false : `scripts/peers made no ${path}: Go is missing`
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
