// Packs the files of files.ts as an OCI image (image-spec v1.1: image-layout.md, config.md, manifest.md), byte by byte
// the same from the same files.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import manifest from '../../package.json' with { type: 'json' }
import { imageFiles, layOut } from './files.ts'

const dist = fileURLToPath(new URL('../../dist', import.meta.url))

type Blob = { readonly mediaType: string; readonly digest: string; readonly size: number }

/**
 * A name with a tag, as a runtime writes it: lower case but for the tag, without the digest that only a registry knows.
 */
const REFERENCE = /^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(\/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[\w][\w.-]{0,127}$/

const wrong = (message: string, cure: string): never => {
  console.error(`image: ${message}\ncure: ${cure}`)
  process.exit(2)
}

function words(): { readonly folder?: string; readonly name: string } {
  const cure = 'scripts/image [--name=REF], or scripts/image root FOLDER'
  try {
    const { positionals, values } = parseArgs({ allowPositionals: true, options: { name: { type: 'string' } } })
    const { name = `localhost/weft:${manifest.version}` } = values
    const [verb, folder, ...more] = positionals
    if (verb === undefined) return { name }
    return verb === 'root' && folder && more.length === 0 && values.name === undefined
      ? { name, folder }
      : wrong(`unknown arguments: ${positionals.join(' ')}`, cure)
  } catch (error) {
    return wrong(error instanceof Error ? (error.message.split('. ')[0] ?? '') : String(error), cure)
  }
}

const { folder, name } = words()
if (!REFERENCE.test(name))
  wrong(
    `--name is ${JSON.stringify(name)}`,
    `give a name with registry and tag, as registry.example/weft:${manifest.version}`
  )
if (folder === undefined) console.log(await archive(name))
else if (existsSync(folder)) wrong(`${folder} exists`, 'name a folder that does not: it is made')
else layOut(imageFiles(dist), folder)

async function archive(name: string): Promise<string> {
  const work = join(dist, 'image.new')
  rmSync(work, { recursive: true, force: true })
  mkdirSync(join(work, 'layout/blobs/sha256'), { recursive: true })
  layOut(imageFiles(dist), join(work, 'root'))
  const layer = join(work, 'layer.tar')
  tar(layer, join(work, 'root'), '.')
  const { digest, size } = await fileBlob(layer, join(work, 'layout'))
  writeLayout(join(work, 'layout'), name, { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size })
  tar(join(work, 'weft.tar'), join(work, 'layout'), 'oci-layout', 'index.json', 'blobs')
  rmSync(join(work, 'root'), { recursive: true })
  rmSync(join(work, 'layout'), { recursive: true })
  rmSync(join(dist, 'image'), { recursive: true, force: true })
  renameSync(work, join(dist, 'image'))
  return join(dist, 'image/weft.tar')
}

/** Owners, times and order are always the same, so that the digest depends on the files alone. */
function tar(to: string, folder: string, ...names: readonly string[]): void {
  const same = ['--owner=0', '--group=0', '--numeric-owner', '--mtime=@0', '--sort=name', '--format=gnu']
  execFileSync('tar', [...same, '-C', folder, '-cf', to, ...names])
}

/** Moves a file into the layout under its digest. */
async function fileBlob(path: string, layout: string): Promise<{ readonly digest: string; readonly size: number }> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  const hex = hash.digest('hex')
  const { size } = statSync(path)
  renameSync(path, join(layout, 'blobs/sha256', hex))
  return { digest: `sha256:${hex}`, size }
}

function writeLayout(layout: string, name: string, layer: Blob): void {
  const blob = (content: object, mediaType: string): Blob => {
    const text = JSON.stringify(content)
    const hex = createHash('sha256').update(text).digest('hex')
    writeFileSync(join(layout, 'blobs/sha256', hex), text)
    return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(text) }
  }
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch
  const config = blob(
    {
      architecture,
      os: 'linux',
      config: runtimeConfig(readFileSync(new URL('../../deploy/Dockerfile', import.meta.url), 'utf8')),
      // The layer is not compressed, so its digest is its diff id.
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
      history: [{ created_by: 'scripts/image' }]
    },
    'application/vnd.oci.image.config.v1+json'
  )
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const whole = blob({ schemaVersion: 2, mediaType, config, layers: [layer] }, mediaType)
  const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name }
  const index = { schemaVersion: 2, manifests: [{ ...whole, platform: { architecture, os: 'linux' }, annotations }] }
  writeFileSync(join(layout, 'index.json'), JSON.stringify(index))
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
}

/** ENV, ENTRYPOINT and LABEL, read from the last stage of the Dockerfile. */
function runtimeConfig(dockerfile: string): object {
  const stage = dockerfile.slice(dockerfile.lastIndexOf('\nFROM '))
  const env = [...stage.matchAll(/^ENV (\S+=\S+)$/gm)].map(([, variable]) => variable)
  const [, entrypoint] = /^ENTRYPOINT (\[.*\])$/m.exec(stage) ?? []
  const labels = [...stage.matchAll(/^LABEL (\S+?)="(.*)"$/gm)].map(([, label, value]) => [label, value])
  if (entrypoint === undefined) throw new Error('deploy/Dockerfile has no ENTRYPOINT in its last stage')
  return { Env: env, Entrypoint: JSON.parse(entrypoint), Labels: Object.fromEntries(labels) }
}
