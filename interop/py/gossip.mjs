// Gossip with strict signing, both ways, from one byte to the largest message.

import { address, ourPeer } from '../lib/children.mjs'
import { pyPeer } from '../lib/py.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { PY } from '../lib/versions.mjs'
import { equal, until } from '../lib/wait.mjs'

const TOPIC = '29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2'
const SIZES = { '1 B': 1, '64 KiB': 65_536, '1 MiB less 4 KiB': 1_044_480 }
const LARGEST = 1_048_576
/** Seconds in which what is not expected does not come. */
const NEVER_SECONDS = 5
const WHOLE_RPC = 'py-libp2p reads and writes at most 1 MiB of gossip at once (`max_inbound_rpc_size`, `max_message_size`), ' +
  'the envelope of a message and its own signed record counted in, as go-libp2p does by default ' +
  '([libp2p/specs#118](https://github.com/libp2p/specs/issues/118)). A payload of 1 MiB, which ours and js-libp2p take, does not fit.'

async function both (t, stack) {
  // Not the shared node: py-libp2p keeps peers of earlier cases in its mesh and waits for them.
  const py = await t.own(pyPeer(stack))
  const peer = await t.own(ourPeer())
  for (const node of [py, peer]) await node.ask('subscribe', { topic: TOPIC })
  await peer.ask('dial', { address: address(py, stack.transport) })
  const among = async (command, node, other) => (await node.ask(command, { topic: TOPIC })).includes(other.peer)
  // py-libp2p sends what it publishes to its mesh alone.
  await until('py to have ours in its mesh', () => among('mesh', py, peer))
  await until('ours to know of py', () => among('subscribers', peer, py))
  return { py, peer }
}

async function arrives (from, to, size, seconds) {
  await from.ask('publish', { topic: TOPIC, size })
  // py-libp2p offers earlier messages of its own to a new peer, so the size tells which one it is.
  const sent = message => message.source === from.peer && message.bytes === size
  equal((await to.event('message', sent, seconds)).intact, true, 'whether the bytes are intact')
}

function casesOn (stack) {
  return Object.entries(SIZES).flatMap(([name, size]) => [
    {
      implementation: PY,
      stack,
      feature: `gossip: signed message of ${name}`,
      direction: 'calnet to py',
      async run (t) {
        const { py, peer } = await both(t, stack)
        await arrives(peer, py, size)
      }
    },
    {
      implementation: PY,
      stack,
      feature: `gossip: signed message of ${name}`,
      direction: 'py to calnet',
      async run (t) {
        const { py, peer } = await both(t, stack)
        await arrives(py, peer, size)
      }
    }
  ])
}

/** One stack is enough for what no stack lets through. */
const tooLarge = ['calnet to py', 'py to calnet'].map(direction => ({
  implementation: PY,
  stack: TLS,
  feature: 'gossip: signed message of 1 MiB',
  direction,
  fails: WHOLE_RPC,
  async run (t) {
    const { py, peer } = await both(t, TLS)
    const [from, to] = direction.startsWith('py') ? [py, peer] : [peer, py]
    await arrives(from, to, LARGEST, NEVER_SECONDS)
  }
}))

export const cases = [...[TLS, NOISE, QUIC].flatMap(casesOn), ...tooLarge]
