// OCI images made from tar and JSON out of programs of this machine: containers of the tests need no registry.
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { run } from './run.ts'

/** Its name in the runtimes. Nobody can pull it: a runtime that does not find it fails at once. */
export const busyboxImage = 'localhost/weft/busybox:1'

export interface Image {
  /** With its registry and tag, `localhost/weft/busybox:1`: runtimes look for exactly this. */
  readonly name: string
  /**
   * Path in the image → the file of this machine that is copied there. Static executables only: there is nothing else.
   */
  readonly files: Readonly<Record<string, string>>
  /** Path in the image → where the symbolic link there points. */
  readonly links?: Readonly<Record<string, string>>
  readonly directories?: readonly string[]
  readonly texts?: Readonly<Record<string, string>>
  readonly command: readonly string[]
}

const applets = [
  'sh',
  'sleep',
  'ping',
  'ip',
  'nc',
  'wget',
  'httpd',
  'cat',
  'ls',
  'echo',
  'mkdir',
  'nslookup',
  'timeout'
]

const busybox: Image = {
  name: busyboxImage,
  files: { 'bin/busybox': '/bin/busybox' },
  links: Object.fromEntries(applets.map((name) => [`bin/${name}`, 'busybox'])),
  directories: ['tmp', 'etc'],
  texts: { 'www/index.html': 'served from the pod\n' },
  command: ['/bin/sleep', '1000000']
}

/** Debian's busybox-static, asleep until told otherwise. Returns the archive's path. */
export function busyboxArchive(directory: string): Promise<string> {
  return imageArchive(directory, busybox)
}

function fillRoot(root: string, { files, links = {}, directories = [], texts = {} }: Image): void {
  const place = (path: string) => {
    const inside = join(root, path)
    mkdirSync(dirname(inside), { recursive: true })
    return inside
  }
  for (const path of directories) mkdirSync(join(root, path), { recursive: true })
  for (const [path, source] of Object.entries(files)) copyFileSync(source, place(path))
  for (const [path, target] of Object.entries(links)) symlinkSync(target, place(path))
  for (const [path, text] of Object.entries(texts)) writeFileSync(place(path), text)
}

/** Writes an image of one layer as an OCI archive (image-spec, image-layout.md) and returns the archive's path. */
export async function imageArchive(directory: string, image: Image): Promise<string> {
  const root = join(directory, 'image-root')
  const layout = join(directory, 'image-layout')
  for (const path of [root, layout]) rmSync(path, { recursive: true, force: true })
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true })
  fillRoot(root, image)
  const layer = join(directory, 'layer.tar')
  await run('tar', ['--owner=0', '--group=0', '--mtime=@0', '--sort=name', '-C', root, '-cf', layer, '.'])
  const bytes = readFileSync(layer)
  const blob = (content: Uint8Array | string, mediaType: string) => {
    const hash = createHash('sha256').update(content).digest('hex')
    writeFileSync(join(layout, 'blobs/sha256', hash), content)
    return { mediaType, digest: `sha256:${hash}`, size: Buffer.byteLength(content) }
  }
  const layerBlob = blob(bytes, 'application/vnd.oci.image.layer.v1.tar')
  const config = blob(
    JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: { Env: ['PATH=/bin'], Cmd: image.command },
      rootfs: { type: 'layers', diff_ids: [layerBlob.digest] },
      history: [{ created_by: 'tests of Weft' }]
    }),
    'application/vnd.oci.image.config.v1+json'
  )
  const manifestType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = blob(
    JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config, layers: [layerBlob] }),
    manifestType
  )
  const annotations = {
    'io.containerd.image.name': image.name,
    'org.opencontainers.image.ref.name': image.name
  }
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] }
  writeFileSync(join(layout, 'index.json'), JSON.stringify(index))
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const archive = join(directory, `${image.name.replaceAll(/[^a-z0-9]+/g, '-')}.tar`)
  await run('tar', ['-C', layout, '-cf', archive, 'oci-layout', 'index.json', 'blobs'])
  return archive
}
