// `calnet` in its default configuration with a `calnet` that offers only the protocols of 0.11.

import { readFile } from 'node:fs/promises'
import path from 'node:path'

import { base58, blobId } from '../lib/blob.mjs'
import { address, calnetOn, calnetOnce, calnetRun, line, ourPeer } from '../lib/children.mjs'
import { configFile, file, folder } from '../lib/files.mjs'
import { MAX_PAYLOAD, pattern } from '../lib/frames.mjs'
import { QUIC, TLS } from '../lib/stacks.mjs'
import { OLDER } from '../lib/versions.mjs'
import { check, checkStack, equal, until } from '../lib/wait.mjs'

const TOPIC = '29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2'
const CONTEXT = base58(Buffer.alloc(32, 7))
const SIZE = 3 * 1024 * 1024 + 5
const FRAMES = [0, 1, 65_536, MAX_PAYLOAD]
/** Names that the published implementation does not know. */
const NEWER = ['/calimero/blob/1.0.0', '/calimero/blob/1.1.0', '/meshsub/1.3.0']

/** The configuration in docs/protocol.md. */
async function older (t) {
  const wire = await readFile(new URL('../../docs/protocol.md', import.meta.url), 'utf8')
  return configFile(t, /```toml\n(.*?)```/s.exec(wire)[1])
}

const DIRECTIONS = ['default to 0.11', '0.11 to default']

/** A case for each direction. `run` gets the configurations of the first and the second side. */
function bothWays (stack, feature, run) {
  return DIRECTIONS.map(direction => ({
    implementation: OLDER,
    stack,
    feature,
    direction,
    async run (t) {
      const config = await older(t)
      const sides = [{ config: undefined }, { config }]
      const [from, to] = direction.startsWith('default') ? sides : sides.toReversed()
      await run(t, from, to)
    }
  }))
}

/** Two of our peers, of which the first has dialled, each of whom has heard what the other speaks. */
async function met (t, stack, from, to) {
  const [first, second] = [await t.own(ourPeer(from)), await t.own(ourPeer(to))]
  await first.ask('dial', { address: address(second, stack.transport) })
  for (const [node, other] of [[first, second], [second, first]]) {
    await until('identify', () => node.ask('identified', { peer: other.peer }))
  }
  return [first, second]
}

function casesOn (stack) {
  return [
    ...bothWays(stack, 'dial, identify and ping', async (t, from, to) => {
      const node = await t.own(calnetRun(to))
      const begins = await t.own(calnetRun({ ...from, dial: [address(node, stack.transport)] }))
      checkStack(await begins.event('connected'), stack)
      const { protocols, ping_min_ms: ping } = await calnetOnce('probe', address(node, stack.transport))
      const newer = NEWER.filter(name => protocols.includes(name))
      equal(newer, to.config === undefined ? ['/meshsub/1.3.0'] : [], 'what is spoken of what is new')
      check(ping > 0, 'no time')
    }),
    ...bothWays(stack, 'stream: frames of 0 B to 8 MiB', async (t, from, to) => {
      const [begins, asked] = await met(t, stack, from, to)
      await begins.ask('frames', { peer: asked.peer, sizes: FRAMES })
    }),
    ...bothWays(stack, 'gossip: signed message of 1 MiB', async (t, from, to) => {
      const asked = await t.own(calnetOn(TOPIC, to))
      const begins = await t.own(calnetOn(TOPIC, { ...from, dial: [address(asked, stack.transport)] }))
      await begins.knows(asked.peer)
      begins.writeLine(line(1_048_576))
      const { source, data } = await asked.message()
      equal(source, begins.peer, 'source')
      check(Buffer.compare(data, line(1_048_576)) === 0, 'other bytes came')
    }),
    ...bothWays(stack, 'blob: fetch of 3 MiB and 5 B', async (t, from, to) => {
      const [begins, asked] = await met(t, stack, from, to)
      const blob = await asked.ask('put_blob', { size: SIZE })
      const fetched = await begins.ask('fetch_blob', { context: CONTEXT, blob, peer: asked.peer })
      equal([fetched.size, fetched.intact], [SIZE, true], 'bytes, and whether they are intact')
    }),
    ...bothWays(stack, 'kademlia: signed provider record', async (t, from, to) => {
      const [asks, provider] = await met(t, stack, from, to)
      const blob = await provider.ask('put_blob', { size: 1234 })
      await until('the announcement', () => provider.ask('announce_blob', { context: CONTEXT, blob }).then(() => true))
      const found = await asks.ask('query_blob', { context: CONTEXT, blob })
      // Without a size it would be told by who holds it for a provider, which no elder does.
      equal(found, [{ peer: provider.peer, size: 1234 }], 'providers')
    }),
    ...bothWays(stack, 'invite: asked for and given', async (t, from, to) => {
      const [begins, asked] = await met(t, stack, from, to)
      await begins.ask('invite', { peer: asked.peer })
      equal((await begins.event('invited')).error, null, 'error of the answer')
    })
  ]
}

/** An operator fetches a blob of a node with the protocols of 0.11. */
const operator = {
  implementation: OLDER,
  stack: TLS,
  feature: 'blob: `calnet blob get` of 3 MiB and 5 B',
  direction: 'default to 0.11',
  async run (t) {
    const data = await folder(t)
    const { id } = await calnetOnce('blob', 'add', await file(t, pattern(SIZE)), '--data', data)
    equal(id, base58(blobId(pattern(SIZE))), 'id of the blob')
    const node = await t.own(calnetRun({ config: await older(t), args: ['--local', '--data', data] }))
    const output = path.join(await folder(t), 'fetched')
    await calnetOnce('blob', 'get', id, '--local', '--context', CONTEXT, '--dial', address(node, 'tcp'), '--output', output)
    check(Buffer.compare(await readFile(output), pattern(SIZE)) === 0, 'other bytes came')
  }
}

export const cases = [...[TLS, QUIC].flatMap(casesOn), operator]
