// Gossip with strict signing, both ways, from one byte to the largest message.

import { createHash } from 'node:crypto'

import { address, calnetOn, line } from '../lib/children.mjs'
import { pattern } from '../lib/frames.mjs'
import { pyPeer } from '../lib/py.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { PY } from '../lib/versions.mjs'
import { check, equal, until } from '../lib/wait.mjs'

const TOPIC = '29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2'
const SIZES = { '1 B': 1, '64 KiB': 65_536, '1 MiB less 4 KiB': 1_044_480 }
const LARGEST = 1_048_576
/** Seconds in which what is not expected does not come. */
const NEVER_SECONDS = 5
const WHOLE_RPC = 'py-libp2p sends and accepts at most 1 MiB of gossip in one RPC (`max_inbound_rpc_size`, ' +
  '`max_message_size`), including the envelope of the message and its signed record, as go-libp2p does ' +
  'by default ([libp2p/specs#118](https://github.com/libp2p/specs/issues/118)). A payload of 1 MiB, ' +
  'which this implementation and js-libp2p accept, is above that limit.'

async function both (t, stack) {
  // Not the shared node: py-libp2p keeps peers of earlier cases in its mesh and waits for them.
  const py = await t.own(pyPeer(stack))
  await py.ask('subscribe', { topic: TOPIC })
  const node = await t.own(calnetOn(TOPIC, { dial: [address(py, stack.transport)] }))
  // py-libp2p sends what it publishes to its mesh alone.
  await until('py to have ours in its mesh', async () => (await py.ask('mesh', { topic: TOPIC })).includes(node.peer))
  await node.knows(py.peer)
  return { py, node }
}

async function toPy (t, stack, size, seconds) {
  const { py, node } = await both(t, stack)
  node.writeLine(line(size))
  const message = await py.event('message', message => message.source === node.peer, seconds)
  const sha256 = createHash('sha256').update(line(size)).digest('hex')
  equal([message.bytes, message.sha256], [size, sha256], 'bytes, and their hash')
}

async function toOurs (t, stack, size, seconds) {
  const { py, node } = await both(t, stack)
  await py.ask('publish', { topic: TOPIC, size })
  // py-libp2p offers earlier messages of its own to a new peer, so the size tells which one it is.
  const { data } = await node.message(message => message.source === py.peer && message.data.length === size, seconds)
  check(Buffer.compare(data, pattern(size)) === 0, 'other bytes came')
}

function casesOn (stack) {
  return Object.entries(SIZES).flatMap(([name, size]) => [
    {
      implementation: PY,
      stack,
      feature: `gossip: signed message of ${name}`,
      direction: 'calnet to py',
      run: t => toPy(t, stack, size)
    },
    {
      implementation: PY,
      stack,
      feature: `gossip: signed message of ${name}`,
      direction: 'py to calnet',
      run: t => toOurs(t, stack, size)
    }
  ])
}

/** One stack is enough for what no stack lets through. */
const tooLarge = Object.entries({ 'calnet to py': toPy, 'py to calnet': toOurs }).map(([direction, run]) => ({
  implementation: PY,
  stack: TLS,
  feature: 'gossip: signed message of 1 MiB',
  direction,
  fails: WHOLE_RPC,
  failure: 'event message of',
  run: t => run(t, TLS, LARGEST, NEVER_SECONDS)
}))

export const cases = [...[TLS, NOISE, QUIC].flatMap(casesOn), ...tooLarge]
