// Frames on `/calimero/stream/0.0.2`: the sizes at both ends of what is allowed, and what is not.

import { multiaddr } from '@multiformats/multiaddr'

import { address, ourPeer } from '../lib/children.mjs'
import { Frames, MAX_PAYLOAD, pattern, prefix } from '../lib/frames.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { check, equal } from '../lib/wait.mjs'

const PROTOCOL = '/calimero/stream/0.0.2'
const SIZES = { 'of 0 B': 0, 'of 1 B': 1, 'of 64 KiB': 65_536, 'of 8 MiB': MAX_PAYLOAD }
/** Streams opened at once. */
const AT_ONCE = 5

/** A stream of js to our peer, which echoes. */
async function toOurs (t, stack) {
  const peer = await t.own(ourPeer())
  const js = await t.js(stack, { listen: [] })
  const connection = await js.dial(multiaddr(address(peer, stack.transport)))
  return { peer, open: async () => new Frames(await connection.newStream(PROTOCOL)) }
}

/** Our peer, connected to a node of js that echoes. */
async function toJs (t, stack) {
  const js = await t.js(stack)
  await js.handle(PROTOCOL, async stream => {
    const frames = new Frames(stream)
    for (let payload; (payload = await frames.next()) !== undefined;) await frames.send(payload)
    await frames.close()
  })
  const peer = await t.own(ourPeer())
  await peer.ask('dial', { address: String(js.getMultiaddrs()[0]) })
  return { peer, js: js.peerId.toString() }
}

async function echoed (frames, size) {
  const sent = pattern(size)
  await frames.send(sent)
  const received = await frames.next()
  equal(received?.length, size, 'bytes that came back')
  check(Buffer.compare(received, sent) === 0, 'other bytes came back')
}

function casesOn (stack) {
  const theirs = { implementation: JS, stack, direction: 'js to calnet' }
  const ours = { implementation: JS, stack, direction: 'calnet to js' }
  const cases = []
  for (const [name, size] of Object.entries(SIZES)) {
    cases.push({
      ...ours,
      feature: `stream: frame ${name}`,
      async run (t) {
        const { peer, js } = await toJs(t, stack)
        await peer.ask('frames', { peer: js, sizes: [size] })
      }
    }, {
      ...theirs,
      feature: `stream: frame ${name}`,
      async run (t) {
        const { peer, open } = await toOurs(t, stack)
        const frames = await open()
        await echoed(frames, size)
        await frames.close()
        equal((await peer.event('stream_ended')).error, null, 'error of ours')
      }
    })
  }
  return [
    ...cases,
    {
      ...theirs,
      feature: 'stream: 8 MiB written in one piece, four times',
      async run (t) {
        const { open } = await toOurs(t, stack)
        const frames = await open()
        const sent = pattern(MAX_PAYLOAD)
        for (let frame = 0; frame < 4; frame++) {
          await frames.writeWhole(Buffer.concat([prefix(sent.length), sent]))
          check(Buffer.compare(await frames.next(), sent) === 0, 'other bytes came back')
        }
      }
    },
    {
      ...theirs,
      feature: `stream: ${AT_ONCE} opened at once`,
      async run (t) {
        const { open } = await toOurs(t, stack)
        await Promise.all(Array.from({ length: AT_ONCE }, async () => echoed(await open(), 1000)))
      }
    },
    {
      ...theirs,
      feature: 'stream: a frame claimed too long is refused',
      async run (t) {
        const { peer, open } = await toOurs(t, stack)
        const frames = await open()
        await frames.write(prefix(MAX_PAYLOAD + 1))
        equal((await peer.event('stream_ended')).error, 'too_large', 'error of ours')
        const end = await frames.read(1).catch(() => undefined)
        equal(end, undefined, 'what js read')
      }
    },
    {
      ...theirs,
      feature: 'stream: a frame that is cut is an error',
      async run (t) {
        const { peer, open } = await toOurs(t, stack)
        const frames = await open()
        await frames.write(prefix(1000))
        await frames.write(pattern(10))
        await frames.close()
        equal((await peer.event('stream_ended')).error, 'cut', 'error of ours')
      }
    },
    {
      ...theirs,
      feature: 'stream: a reset is an error',
      async run (t) {
        const { peer, open } = await toOurs(t, stack)
        const frames = await open()
        await echoed(frames, 10)
        frames.abort()
        equal((await peer.event('stream_ended')).error, 'io', 'error of ours')
      }
    }
  ]
}

export const cases = [TLS, NOISE, QUIC].flatMap(casesOn)
