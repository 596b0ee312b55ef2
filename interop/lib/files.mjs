// Folders and files of one case.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** A folder that is removed with the case. */
export async function folder (t) {
  const made = await mkdtemp(path.join(tmpdir(), 'interop-'))
  t.defer(() => rm(made, { recursive: true }))
  return made
}

/** A file with `content`. */
export async function file (t, content, name = 'file') {
  const made = path.join(await folder(t), name)
  await writeFile(made, content)
  return made
}

/** A configuration file of this TOML. */
export async function configFile (t, toml) {
  return file(t, toml, 'config.toml')
}
