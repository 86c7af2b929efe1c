// Prints the tables of the documents from the code they describe. `node scripts/docs.ts` updates them; a unit test
// fails when a page differs.
import { readFileSync, writeFileSync } from 'node:fs'
import { blocks as configuration } from './docs/configuration.ts'
import { blocks as errors } from './docs/errors.ts'
import { withBlocks } from './docs/markdown.ts'
import { blocks as metrics } from './docs/metrics.ts'
import { blocks as plugins } from './docs/plugin-keys.ts'

const { weftctl, ...flagsAndKeys } = configuration

/** The pages with printed tables, by path in the repository. */
export const PAGES: Readonly<Record<string, Readonly<Record<string, () => string>>>> = {
  'docs/configuration.md': { ...flagsAndKeys, ...plugins },
  'docs/errors.md': errors,
  'docs/metrics.md': metrics,
  'docs/troubleshooting.md': { weftctl }
}

const pathOf = (page: string): URL => new URL(`../${page}`, import.meta.url)

/** A page as it is, and as it should be. */
export function printedPage(page: string): { readonly is: string; readonly shouldBe: string } {
  const is = readFileSync(pathOf(page), 'utf8')
  return { is, shouldBe: withBlocks(page, is, PAGES[page] ?? {}) }
}

if (import.meta.main) {
  for (const page of Object.keys(PAGES)) {
    const { is, shouldBe } = printedPage(page)
    if (is !== shouldBe) writeFileSync(pathOf(page), shouldBe)
    process.stdout.write(`${page}: ${is === shouldBe ? 'up to date' : 'updated'}\n`)
  }
}
