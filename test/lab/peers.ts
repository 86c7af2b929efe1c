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
