// Stories about kernel features that this machine may lack, on Debian's kernel in a virtual machine. Each file of
// stories/ runs there as it would run here; a story that fails prints what the guest printed.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Machine, vmParts } from './machine.ts'

const repository = fileURLToPath(new URL('../..', import.meta.url))
const stories = readdirSync(new URL('stories', import.meta.url))
  .filter((file) => /-(underlay|bridge|fou|tunnel)\.ts$/.test(file))
  .sort()
const parts = vmParts()
/** Stories with etcd and flanneld, whose start alone takes a minute in an emulated machine. */
const long = process.env.WEFT_LONG === '1' ? 'WEFT_LONG=1 ' : ''
const skip =
  process.getuid?.() !== 0
    ? 'needs root'
    : parts === undefined && 'needs QEMU and the kernel that scripts/vm-parts downloads'

/**
 * Fills Node's compile cache with the story's modules: to strip their types, which a WebAssembly module does, takes the
 * emulated processor several seconds.
 */
const compile = (story: string, cache: string): unknown =>
  execFileSync(process.execPath, ['--test-skip-pattern=.', `test/vm/stories/${story}`], {
    cwd: repository,
    env: { ...process.env, NODE_COMPILE_CACHE: cache, NODE_TEST_CONTEXT: '' },
    stdio: 'ignore'
  })

describe('in a virtual machine', { skip }, () => {
  let machine: Machine
  let cache = ''
  before(async () => {
    // Below /tmp the guest has files of its own.
    cache = mkdtempSync(join(String(parts), 'compiled-'))
    for (const story of stories) compile(story, cache)
    machine = await Machine.boot(String(parts))
  })
  after(async () => {
    await machine?.[Symbol.asyncDispose]()
    if (cache !== '') rmSync(cache, { recursive: true })
  })

  for (const story of stories)
    test(story.replace('.ts', ''), async () => {
      const { code, output } = await machine.sh(
        `cd ${repository} && WEFT_LAB_BIN=1 ${long}NODE_COMPILE_CACHE=${cache} ${process.execPath} test/vm/stories/${story}`,
        600_000
      )
      assert.equal(code, 0, output.slice(-8_000))
    })
})
