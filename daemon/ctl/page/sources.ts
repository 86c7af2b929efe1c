// The page's files. scripts/executable/bundle.ts replaces this module by one with their texts inside.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export type PageSources = { readonly html: string; readonly style: string; readonly script: string }

const read = (name: string): string => readFileSync(join(import.meta.dirname, name), 'utf8')

/** As one script: each file needs only those before it, so their imports and exports can go. */
const script = (name: string): string =>
  read(name)
    .replaceAll(/^import .*\n/gm, '')
    .replaceAll(/^export /gm, '')

export const pageSources = (): PageSources => ({
  html: read('page.html'),
  style: ['page.css', 'grid.css'].map(read).join('\n'),
  script: ['elements.js', 'grid.js', 'browser.js'].map(script).join('\n')
})
