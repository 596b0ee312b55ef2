// The published implementation of this network, as a process of its own, beside ours.

import { existsSync, readFileSync } from 'node:fs'

import { PUBLISHED as PROCESS, address, calnetOnce, calnetRun, ourPeer, publishedPeer } from '../lib/children.mjs'
import { configFile } from '../lib/files.mjs'
import { MAX_PAYLOAD } from '../lib/frames.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { PUBLISHED } from '../lib/versions.mjs'
import { check, checkStack, equal, until } from '../lib/wait.mjs'

const TOPIC = '29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2'
const CONTEXT = 'US517G5965aydkZ46HS38QLi7UQiSojurfbQfKCELFx'
const FRAMES = { 'of 0 B': 0, 'of 1 B': 1, 'of 64 KiB': 65_536, 'of 8 MiB': MAX_PAYLOAD }
const MESSAGES = { '1 B': 1, '60 KiB': 61_440 }
const LARGEST = 1_048_576
const BLOBS = { '0 B': 0, '1 B': 1, '3 MiB and 5 B': 3 * 1024 * 1024 + 5 }
/** Bytes of the quote that the published node sends with its request for an invitation. */
const QUOTE_BYTES = 1000
/** Seconds in which what is not expected does not come. */
const NEVER_SECONDS = 5
const WHOLE_RPC = 'The published node sends and accepts at most 64 KiB of gossip in one RPC, including the envelope of ' +
  'the message (`max_transmit_size`, the default of libp2p-gossipsub 0.49). This implementation accepts' +
  ' 1 MiB.'

/** What such a node tells identify, of which the vectors keep a record. */
const IDENTIFY = JSON.parse(readFileSync(new URL('../../testdata/vectors.json', import.meta.url))).identify

/** It writes provider records that nobody has signed, and reads no others. */
const UNSIGNED = '[blob]\nunsigned_records = true\n'

function skip () {
  if (!existsSync(PROCESS)) return 'the published node is not built'
}

/** Two connected nodes, of which the first word of the direction has dialled. */
async function met (t, { transport }, direction, config = '') {
  const theirs = await t.own(publishedPeer())
  const ours = await t.own(ourPeer({ config: await configFile(t, config) }))
  if (direction.startsWith('calnet')) await ours.ask('dial', { address: address(theirs, transport) })
  else await theirs.ask('dial', { address: address(ours, transport) })
  await until('ours to hear what theirs speaks', () => ours.ask('identified', { peer: theirs.peer }))
  return { ours, theirs }
}

async function following (t, stack, direction) {
  const both = await met(t, stack, direction)
  for (const [node, other] of [[both.ours, both.theirs], [both.theirs, both.ours]]) {
    await node.ask('subscribe', { topic: TOPIC })
    await until('a follower', async () =>
      (await other.ask('subscribers', { topic: TOPIC })).includes(node.peer))
  }
  return both
}

async function arrives ({ ours, theirs }, direction, size, seconds) {
  const [from, to] = direction.startsWith('calnet') ? [ours, theirs] : [theirs, ours]
  await from.ask('publish', { topic: TOPIC, size })
  const message = await to.event('message', () => true, seconds)
  equal([message.source, message.bytes, message.intact], [from.peer, size, true], 'source, bytes, intact')
}

/** Each way, with `run` given the pair, the direction, and who begins and who is asked. */
function bothWays (stack, feature, run) {
  return ['calnet to published', 'published to calnet'].map(direction => ({
    implementation: PUBLISHED, stack, feature, direction, skip, run: t => run(t, direction)
  }))
}

const begins = ({ ours, theirs }, direction) => direction.startsWith('calnet') ? [ours, theirs] : [theirs, ours]

function casesOn (stack) {
  return [
    {
      implementation: PUBLISHED,
      stack,
      feature: 'dial',
      direction: 'calnet to published',
      skip,
      async run (t) {
        const theirs = await t.own(publishedPeer())
        const node = await t.own(calnetRun({ dial: [address(theirs, stack.transport)] }))
        checkStack(await node.event('connected'), stack)
      }
    },
    {
      implementation: PUBLISHED,
      stack,
      feature: 'dial',
      direction: 'published to calnet',
      skip,
      async run (t) {
        const theirs = await t.own(publishedPeer())
        const node = await t.own(calnetRun())
        await theirs.ask('dial', { address: address(node, stack.transport) })
        checkStack(await node.event('connected'), stack)
      }
    },
    {
      implementation: PUBLISHED,
      stack,
      feature: 'identify',
      direction: 'calnet to published',
      skip,
      async run (t) {
        const { ours, theirs } = await met(t, stack, 'calnet')
        const told = await ours.ask('identified', { peer: theirs.peer })
        equal(told.protocol_version, IDENTIFY.protocol_version, 'protocol version')
        // Kademlia is announced once a public address is known, AutoNAT while an address is probed.
        const [kademlia, ...others] = IDENTIFY.protocols
        const missing = others.filter(name => !told.protocols.includes(name))
        const more = told.protocols.filter(name =>
          !others.includes(name) && name !== kademlia && !name.startsWith('/libp2p/autonat/2/'))
        equal([missing, more], [[], []], 'protocols that are missing, and those beyond')
      }
    },
    {
      implementation: PUBLISHED,
      stack,
      feature: 'ping',
      direction: 'calnet to published',
      skip,
      async run (t) {
        const theirs = await t.own(publishedPeer())
        const report = await calnetOnce('probe', address(theirs, stack.transport))
        check(report.ping_min_ms > 0, 'no time')
      }
    },
    ...Object.entries(FRAMES).flatMap(([name, size]) =>
      bothWays(stack, `stream: frame ${name}`, async (t, direction) => {
        const [from, to] = begins(await met(t, stack, direction), direction)
        await from.ask('frames', { peer: to.peer, sizes: [size] })
        equal((await to.event('stream_ended')).error, null, 'error of who was asked')
      })),
    ...Object.entries(MESSAGES).flatMap(([name, size]) =>
      bothWays(stack, `gossip: signed message of ${name}`, async (t, direction) =>
        arrives(await following(t, stack, direction), direction, size))),
    ...Object.entries(BLOBS).flatMap(([name, size]) =>
      bothWays(stack, `blob: fetch of ${name}`, async (t, direction) => {
        const [from, to] = begins(await met(t, stack, direction), direction)
        const blob = await to.ask('put_blob', { size })
        const fetched = await from.ask('fetch_blob', { context: CONTEXT, blob, peer: to.peer })
        equal([fetched.size, fetched.intact], [size, true], 'bytes, and whether they are intact')
      })),
    ...bothWays(stack, 'invite: asked for and given', async (t, direction) => {
      const [from, to] = begins(await met(t, stack, direction), direction)
      await from.ask('invite', { peer: to.peer })
      const invited = await from.event('invited')
      equal([invited.bytes, invited.error], [QUOTE_BYTES, null], 'bytes and error of the answer')
    })
  ]
}

const noise = {
  implementation: PUBLISHED,
  stack: NOISE,
  feature: 'dial',
  direction: 'calnet to published',
  skip,
  async run (t) {
    const theirs = await t.own(publishedPeer())
    // Both offer both, and who dials chooses.
    const config = await configFile(t, "[transport.tcp]\nprefer = 'noise'\n")
    const node = await t.own(calnetRun({ config, dial: [address(theirs, 'tcp')] }))
    checkStack(await node.event('connected'), NOISE)
  }
}

const records = bothWays(TLS, 'kademlia: unsigned provider record', async (t, direction) => {
  // A node of ours beside both: the published one serves Kademlia to nobody before it knows a public
  // address of its own, and so holds no records of others.
  const { ours, theirs } = await met(t, TLS, 'calnet', UNSIGNED)
  const hub = await t.own(ourPeer({ config: await configFile(t, UNSIGNED) }))
  for (const node of [ours, theirs]) await node.ask('dial', { address: address(hub, 'tcp') })
  const [provider, asking] = direction.startsWith('calnet') ? [theirs, ours] : [ours, theirs]
  const size = 1234
  const blob = await provider.ask('put_blob', { size })
  await until('the announcement', () =>
    provider.ask('announce_blob', { context: CONTEXT, blob, size }).then(() => true))
  const found = await until('the provider to be found', async () => {
    const found = await asking.ask('query_blob', { context: CONTEXT, blob })
    return found.length > 0 ? found : undefined
  })
  equal(found.map(one => one.peer ?? one), [provider.peer], 'providers')
})

const tooLarge = bothWays(TLS, 'gossip: signed message of 1 MiB', async (t, direction) =>
  arrives(await following(t, TLS, direction), direction, LARGEST, NEVER_SECONDS))
  // It refuses to send it, and drops what comes.
  .map(one => ({
    ...one,
    fails: WHOLE_RPC,
    failure: one.direction === 'published to calnet' ? 'MessageTooLarge' : 'event message of the published node'
  }))

export const cases = [...[TLS, QUIC].flatMap(casesOn), noise, ...records, ...tooLarge]
