// Names of the implementations with the versions that are pinned.

import { readFileSync } from 'node:fs'

const lock = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'))

export const JS = `js-libp2p ${lock.packages['node_modules/libp2p'].version}`
