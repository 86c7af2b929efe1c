// Compiles the JSON schemas ahead to daemon/config/schemas.generated.ts, so that weftd starts without ajv (13 MB
// resident and 90 ms on the reference machine). `node scripts/schemas.ts` writes the file; a unit test fails when it is
// not what the schemas give.
import { writeFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import standalone from 'ajv/dist/standalone/index.js'
import { netConfSchema } from '../daemon/config/net-conf.schema.ts'

const HEAD = `// The schemas compiled ahead by scripts/schemas.ts; change *.schema.ts and run that, never this file.
// biome-ignore-all lint: generated
// biome-ignore-all format: generated
// @ts-nocheck: generated
`

/** Where the compiled schemas are kept. */
export const GENERATED = new URL('../daemon/config/schemas.generated.ts', import.meta.url)

/** The text of config/schemas.generated.ts. */
export function compiledSchemas(): string {
  const ajv = new Ajv({ code: { source: true, esm: true }, schemas: [netConfSchema], messages: false })
  const code = standalone.default(ajv, { netConf: netConfSchema.$id }).replace(/^"use strict";/, '')
  if (/\brequire\(/.test(code))
    throw new Error('a schema uses a keyword that needs ajv at run time (const, enum of objects, minLength …)')
  return `${HEAD}${code.replaceAll(';', ';\n')}\n`
}

if (import.meta.main) writeFileSync(GENERATED, compiledSchemas())
