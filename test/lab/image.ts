// An OCI image of Debian's busybox-static, made from tar and JSON: containers of the tests need no registry.
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './run.ts'

/** Its name in the runtimes. Nobody can pull it: a runtime that does not find it fails at once. */
export const busyboxImage = 'localhost/weft/busybox:1'

const applets = ['sh', 'sleep', 'ping', 'ip', 'nc', 'wget', 'httpd', 'cat', 'ls']

/** Writes the image as an OCI archive (image-spec, image-layout.md) and returns the archive's path. */
export async function busyboxArchive(directory: string): Promise<string> {
  const root = join(directory, 'image-root')
  const layout = join(directory, 'image-layout')
  for (const path of [root, layout]) rmSync(path, { recursive: true, force: true })
  for (const path of ['bin', 'tmp', 'etc', 'www']) mkdirSync(join(root, path), { recursive: true })
  mkdirSync(join(layout, 'blobs/sha256'), { recursive: true })
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  for (const name of applets) symlinkSync('busybox', join(root, 'bin', name))
  writeFileSync(join(root, 'www/index.html'), 'served from the pod\n')
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
      config: { Env: ['PATH=/bin'], Cmd: ['/bin/sleep', '1000000'] },
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
    'io.containerd.image.name': busyboxImage,
    'org.opencontainers.image.ref.name': busyboxImage
  }
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] }
  writeFileSync(join(layout, 'index.json'), JSON.stringify(index))
  writeFileSync(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const archive = join(directory, 'busybox.tar')
  await run('tar', ['-C', layout, '-cf', archive, 'oci-layout', 'index.json', 'blobs'])
  return archive
}
