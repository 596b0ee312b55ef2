// Frames on `/calimero/stream/0.0.2`: the sizes at both ends of what is allowed, and what is not.

import { address, ourPeer } from '../lib/children.mjs'
import { MAX_PAYLOAD } from '../lib/frames.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { PY } from '../lib/versions.mjs'
import { equal, until } from '../lib/wait.mjs'

const SIZES = { 'of 0 B': 0, 'of 1 B': 1, 'of 64 KiB': 65_536, 'of 8 MiB': MAX_PAYLOAD }

async function connected (t, stack) {
  const py = await t.py(stack)
  const peer = await t.own(ourPeer())
  await peer.ask('dial', { address: address(py, stack.transport) })
  await until('py to see the connection', async () => (await py.ask('connected')).includes(peer.peer))
  return { py, peer }
}

function casesOn (stack) {
  const out = { implementation: PY, stack, direction: 'calnet to py' }
  const back = { implementation: PY, stack, direction: 'py to calnet' }
  const cases = Object.entries(SIZES).flatMap(([name, size]) => [
    {
      ...out,
      feature: `stream: frame ${name}`,
      async run (t) {
        const { py, peer } = await connected(t, stack)
        await peer.ask('frames', { peer: py.peer, sizes: [size] })
      }
    },
    {
      ...back,
      feature: `stream: frame ${name}`,
      async run (t) {
        const { py, peer } = await connected(t, stack)
        await py.ask('frames', { peer: peer.peer, sizes: [size] })
      }
    }
  ])
  const refused = (feature, claimed, sent, error) => ({
    ...back,
    feature,
    async run (t) {
      const { py, peer } = await connected(t, stack)
      await py.ask('raw', { peer: peer.peer, claimed, sent })
      equal((await peer.event('stream_ended')).error, error, 'error of ours')
    }
  })
  return [
    ...cases,
    refused('stream: a frame claimed too long is refused', MAX_PAYLOAD + 1, 0, 'too_large'),
    refused('stream: a frame that is cut is an error', 1000, 10, 'cut')
  ]
}

export const cases = [TLS, NOISE, QUIC].flatMap(casesOn)
