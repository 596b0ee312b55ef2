// Nodes of py-libp2p.

import { fileURLToPath } from 'node:url'

import { Scripted } from './children.mjs'

const PYTHON = fileURLToPath(new URL('../.venv/bin/python', import.meta.url))
const PEER = fileURLToPath(new URL('../py/peer.py', import.meta.url))

/** A node of py-libp2p on `stack`, that offers nothing else. */
export async function pyPeer ({ transport, security }) {
  const child = new Scripted(PYTHON, [PEER, transport, security])
  const started = await child.event('started')
  child.name = 'py-libp2p'
  child.peer = started.peer
  child.addresses = started.listening
  return child
}
