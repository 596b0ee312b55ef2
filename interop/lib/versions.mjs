// Names of the implementations with the versions that are pinned.

import { readFileSync } from 'node:fs'

const read = name => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8')
const lock = JSON.parse(read('package-lock.json'))

export const PUBLISHED = `calimero-network ${read('published/Cargo.toml').match(/^calimero-network = "=(.*)"$/m)[1]}`
/** `calnet` with a configuration that offers only what the published version supports. */
export const OLDER = 'calnet with the protocols of 0.11'
export const JS = `js-libp2p ${lock.packages['node_modules/libp2p'].version}`
export const PY = `py-libp2p ${read('requirements.txt').match(/^libp2p==(.*)$/m)[1]}`
