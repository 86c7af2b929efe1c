// Stories about kernel features that this machine may lack, on Debian's kernel in a virtual machine. Each file of
// stories/ runs there as it would run here; a story that fails prints what the guest printed.
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Machine, vmParts } from './machine.ts'

const repository = fileURLToPath(new URL('../..', import.meta.url))
const stories = readdirSync(new URL('stories', import.meta.url))
  .filter((file) => /-(underlay|bridge)\.ts$/.test(file))
  .sort()
const parts = vmParts()
const skip =
  process.getuid?.() !== 0
    ? 'needs root'
    : parts === undefined && 'needs QEMU and the kernel that scripts/vm-parts downloads'

describe('in a virtual machine', { skip }, () => {
  let machine: Machine
  before(async () => {
    machine = await Machine.boot(String(parts))
  })
  after(() => machine?.[Symbol.asyncDispose]())

  for (const story of stories)
    test(story.replace('.ts', ''), async () => {
      const { code, output } = await machine.sh(
        `cd ${repository} && WEFT_LAB_BIN=1 ${process.execPath} test/vm/stories/${story}`,
        600_000
      )
      assert.equal(code, 0, output.slice(-8_000))
    })
})
