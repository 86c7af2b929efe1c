// Entry of the executable: weftd, or weftctl when called by that name or as kubectl's plugin, so that the 120 MB of
// Node are on disk once.
import { basename } from 'node:path'
import { loadAddon } from './addon.ts'

// The second word of argv is the name that was called, in a single file, and the bundle's path under node.
if (/^(weftctl|kubectl-weft)/.test(basename(process.argv[1] ?? ''))) await import('../../daemon/ctl/main.ts')
else {
  loadAddons()
  await import('../../daemon/main.ts')
}

/** Before anything imports them, because koffi hides the reason why its add-on did not load. */
function loadAddons(): void {
  try {
    loadAddon('koffi.node', import.meta.dirname)
  } catch (error) {
    process.stderr.write(`weftd: ${error instanceof Error ? error.message : error}\n`)
    process.exit(1)
  }
}
