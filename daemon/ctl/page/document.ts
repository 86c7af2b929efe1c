// The page as one document, with style and script inside, and the policy that lets a browser run these two and nothing
// else.
import { createHash } from 'node:crypto'
import type { PageSources } from './sources.ts'

export type Document = {
  readonly html: string
  /** Headers of every answer. */
  readonly headers: Readonly<Record<string, string>>
}

const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

export function documentOf({ html, style, script }: PageSources): Document {
  const policy = [
    "default-src 'none'",
    `script-src ${hashOf(script)}`,
    `style-src ${hashOf(style)}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    // No text can become markup, whatever the script does with it.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'"
  ]
  // A replacement as a function, since a text may contain `$&`.
  const filled = html
    .replace('<style></style>', () => `<style>${style}</style>`)
    .replace('<script></script>', () => `<script>${script}</script>`)
  return {
    html: filled,
    headers: {
      'Content-Security-Policy': policy.join('; '),
      'X-Content-Type-Options': 'nosniff',
      'X-Frame-Options': 'DENY',
      'Referrer-Policy': 'no-referrer',
      'Cache-Control': 'no-store',
      'Cross-Origin-Resource-Policy': 'same-origin',
      'Cross-Origin-Opener-Policy': 'same-origin'
    }
  }
}
