// The setting that weftd changed, told by the alias of the device: the kernel keeps it while weftd is restarted, and
// loses it with the setting.

/** What is lost while checksums are offloaded: translated packets alone, or all but ICMP. */
export type Broken = 'translated' | 'all'

/** Offload that weftd turned off, for packets to the node of the lease `key`. */
export type Cured = { readonly broken: Broken; readonly key: string; readonly isProven: boolean }

const MARKS: readonly (readonly [mark: string, Pick<Cured, 'broken' | 'isProven'>])[] = (
  ['translated', 'all'] as const
).flatMap((broken) => [
  [`checksum-offload-off-by-weftd:${broken}`, { broken, isProven: true }],
  [`checksum-offload-tried-off-by-weftd:${broken}`, { broken, isProven: false }]
])

/** The alias of such a device. */
export function aliasOf({ broken, key, isProven }: Cured): string {
  const [mark = ''] = MARKS.find(([, each]) => each.broken === broken && each.isProven === isProven) ?? []
  return `${mark} ${key}`
}

/** `undefined`: an alias of somebody else, or none. */
export function curedOf(alias: string | undefined): Cured | undefined {
  const [mark, key, ...more] = (alias ?? '').split(' ')
  const found = MARKS.find(([each]) => each === mark)
  return found === undefined || !key || more.length > 0 ? undefined : { ...found[1], key }
}
