// Gossip with strict signing, both ways, from one byte to the largest message.

import { gossipsub } from '@libp2p/gossipsub'
import { multiaddr } from '@multiformats/multiaddr'

import { address, calnetOn, line } from '../lib/children.mjs'
import { pattern } from '../lib/frames.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { check, equal, events, until } from '../lib/wait.mjs'

const TOPIC = '29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2'
const SIZES = { '1 B': 1, '64 KiB': 65_536, '1 MiB': 1_048_576 }
/** Messages of each node where three exchange them. */
const ROUNDS = 10

const settings = {
  globalSignaturePolicy: 'StrictSign',
  // js-libp2p scores down peers that share an address, which all do here.
  scoreParams: { IPColocationFactorWeight: 0 }
}

/** A node of js that follows the topic and is connected to ours, once both know of each other. */
async function follower (t, stack, node, more = {}) {
  const js = await t.js(stack, { listen: [], services: { pubsub: gossipsub({ ...settings, ...more }) } })
  const { pubsub } = js.services
  pubsub.subscribe(TOPIC)
  js.next = events(pubsub, 'message')
  await js.dial(multiaddr(address(node, stack.transport)))
  const id = js.peerId.toString()
  // A message is lost that js publishes before its stream is open: it knows of us by ours.
  await until('js to know of ours', () => pubsub.getSubscribers(TOPIC).some(p => p.toString() === node.peer))
  await until('js to have ours in its mesh', () => pubsub.getMeshPeers(TOPIC).includes(node.peer))
  await node.knows(id)
  return js
}

async function both (t, stack, more) {
  const node = await t.own(calnetOn(TOPIC))
  return { node, js: await follower(t, stack, node, more) }
}

function casesOn (stack) {
  const ours = { implementation: JS, stack, direction: 'calnet to js' }
  const theirs = { implementation: JS, stack, direction: 'js to calnet' }
  return Object.entries(SIZES).flatMap(([name, size]) => [
    {
      ...ours,
      feature: `gossip: signed message of ${name}`,
      async run (t) {
        const { node, js } = await both(t, stack)
        node.writeLine(line(size))
        const message = await js.next()
        equal(message.type, 'signed', 'type of the message')
        equal(message.from.toString(), node.peer, 'source')
        check(Buffer.compare(message.data, line(size)) === 0, 'other bytes came')
      }
    },
    {
      ...theirs,
      feature: `gossip: signed message of ${name}`,
      async run (t) {
        const { node, js } = await both(t, stack)
        await js.services.pubsub.publish(TOPIC, pattern(size))
        const message = await node.message()
        equal(message.source, js.peerId.toString(), 'source')
        check(Buffer.compare(message.data, pattern(size)) === 0, 'other bytes came')
      }
    }
  ])
}

const unsigned = {
  implementation: JS,
  stack: TLS,
  feature: 'gossip: an unsigned message is not taken',
  direction: 'js to calnet',
  async run (t) {
    const node = await t.own(calnetOn(TOPIC))
    const bare = await follower(t, TLS, node, { globalSignaturePolicy: 'StrictNoSign' })
    await bare.services.pubsub.publish(TOPIC, pattern(3))
    const signing = await follower(t, TLS, node)
    // js counts an unsigned message as sent once it is written; ours answers nothing to it. A ping
    // after it on the same connection and a signed message of another node come later than it.
    await bare.services.ping.ping(bare.getConnections()[0].remotePeer)
    await signing.services.pubsub.publish(TOPIC, pattern(5))
    equal((await node.message()).data.length, 5, 'length of the first message that is taken')
  }
}

/** Two of js and one of ours, which relays: js and js do not know of each other. */
const relayed = {
  implementation: JS,
  stack: TLS,
  feature: 'gossip: three nodes get every message once',
  direction: 'both',
  async run (t) {
    const { node, js: first } = await both(t, TLS)
    const second = await follower(t, TLS, node)
    const seen = { first: [], second: [], ours: [] }
    const total = 3 * ROUNDS
    for (let round = 0; round < ROUNDS; round++) {
      // Sizes tell messages apart.
      await first.services.pubsub.publish(TOPIC, pattern(100 + round))
      await second.services.pubsub.publish(TOPIC, pattern(200 + round))
      node.writeLine(line(300 + round))
    }
    const sizes = (...hundreds) => hundreds.flatMap(of => Array.from({ length: ROUNDS }, (_, at) => of + at))
    const collect = async (into, next, expected) => {
      while (into.length < expected.length) into.push(await next())
      equal(into.sort((a, b) => a - b), expected, 'messages')
    }
    await collect(seen.first, async () => (await first.next()).data.length, sizes(200, 300))
    await collect(seen.second, async () => (await second.next()).data.length, sizes(100, 300))
    await collect(seen.ours, async () => (await node.message()).data.length, sizes(100, 200))
    equal(seen.first.length + seen.second.length + seen.ours.length, 2 * total, 'deliveries')
  }
}

export const cases = [...[TLS, NOISE, QUIC].flatMap(casesOn), unsigned, relayed]
