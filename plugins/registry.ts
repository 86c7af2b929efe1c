// Name → plugin, one line each: weftd looks types up here, and scripts/build-plugins installs exactly these names.
import { hostLocal } from './host-local.ts'
import { loopback } from './loopback.ts'
import type { Plugin } from './plugin.ts'
import { staticAddresses } from './static.ts'
import { weft } from './weft.ts'

const plugins: readonly Plugin[] = [weft, loopback, hostLocal, staticAddresses]

export const pluginTypes: readonly string[] = plugins.map((plugin) => plugin.type)

export const pluginNamed = (type: string): Plugin | undefined => plugins.find((plugin) => plugin.type === type)
