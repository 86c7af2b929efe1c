// Name → plugin, one line each: weftd looks types up here, and scripts/build-plugins installs exactly these names.
import { loopback } from './loopback.ts'
import type { Plugin } from './plugin.ts'
import { weft } from './weft.ts'

const plugins: readonly Plugin[] = [weft, loopback]

export const pluginTypes: readonly string[] = plugins.map((plugin) => plugin.type)

export const pluginNamed = (type: string): Plugin | undefined => plugins.find((plugin) => plugin.type === type)
