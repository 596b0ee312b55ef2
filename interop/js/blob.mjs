// Blobs on `/calimero/blob/0.0.2`, and the signed records in Kademlia by which they are found.

import { generateKeyPair } from '@libp2p/crypto/keys'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { multiaddr } from '@multiformats/multiaddr'

import { PROTOCOL, base58, blobId, provide, readRecord, recordKey, request, signRecord } from '../lib/blob.mjs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'

import { address, calnetOnce, calnetRun, ourPeer } from '../lib/children.mjs'
import { file, folder } from '../lib/files.mjs'
import { pattern } from '../lib/frames.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { check, equal, until } from '../lib/wait.mjs'

const CONTEXT = Buffer.alloc(32, 7)
/** Nothing, one byte, and chunks that are not whole at the end. */
const SIZES = { '0 B': 0, '1 B': 1, '3 MiB and 5 B': 3 * 1024 * 1024 + 5 }

/** `calnet blob get` of the blob of `content`, of which a node of js gives what `given` says. */
async function get (t, stack, content, given = content) {
  const js = await t.js(stack)
  const blob = base58(blobId(content))
  await js.handle(PROTOCOL, stream => provide(stream, { [blob]: given }))
  const output = path.join(await folder(t), 'fetched')
  const told = await calnetOnce('blob', 'get', blob, '--local', '--context', base58(CONTEXT),
    '--dial', String(js.getMultiaddrs()[0]), '--output', output)
  return { told, output, blob }
}

/** A stream of js to `calnet run`, whose folder has a blob of `size`. */
async function asking (t, stack, size) {
  const data = await folder(t)
  const added = await calnetOnce('blob', 'add', await file(t, pattern(size)), '--data', data)
  equal([added.id, added.size_bytes], [base58(blobId(pattern(size))), size], 'id and size of the blob')
  const node = await t.own(calnetRun({ args: ['--local', '--data', data] }))
  const js = await t.js(stack, { listen: [] })
  const connection = await js.dial(multiaddr(address(node, stack.transport)))
  return connection.newStream(PROTOCOL)
}

function casesOn (stack) {
  const ours = { implementation: JS, stack, direction: 'calnet to js' }
  const theirs = { implementation: JS, stack, direction: 'js to calnet' }
  return [
    ...Object.entries(SIZES).flatMap(([name, size]) => [
      {
        ...ours,
        feature: `blob: fetch of ${name}`,
        async run (t) {
          const { told, output, blob } = await get(t, stack, pattern(size))
          equal([told.event, told.id, told.size_bytes], ['fetched', blob, size], 'what calnet says')
          check(Buffer.compare(await readFile(output), pattern(size)) === 0, 'other bytes came')
        }
      },
      {
        ...theirs,
        feature: `blob: fetch of ${name}`,
        async run (t) {
          const stream = await asking(t, stack, size)
          const content = pattern(size)
          const { answer, content: got, closed } = await request(stream, { blob: blobId(content), context: CONTEXT })
          equal(answer, { found: true, size }, 'answer')
          check(Buffer.compare(got, content) === 0, 'other bytes came')
          check(closed, 'the provider did not close after the last chunk')
        }
      }
    ]),
    {
      ...theirs,
      feature: 'blob: one that is not there',
      async run (t) {
        const stream = await asking(t, stack, 10)
        const { answer } = await request(stream, { blob: Buffer.alloc(32, 1), context: CONTEXT })
        equal(answer, { found: false, size: null }, 'answer')
      }
    },
    {
      ...ours,
      feature: 'blob: other bytes than asked for are refused',
      async run (t) {
        const refused = await get(t, stack, pattern(1000), Buffer.alloc(1000)).then(() => false, error => error)
        check(/other content|content|hash|verif/i.test(refused?.message), `other bytes were taken, or: ${refused}`)
      }
    }
  ]
}

/**
 * js-libp2p keeps records under `/name/..` alone, where it has a validator and a selector of that
 * name; the key of a record begins with its context.
 */
const NAMED = Buffer.from('/calimero/'.padEnd(32, 'c'))

/** A node of js in Kademlia that takes such records as they are. */
async function kadNode (t, stack, more = {}) {
  return t.js(stack, {
    services: {
      dht: kadDHT({
        protocol: '/calimero/kad/1.0.0',
        clientMode: false,
        peerInfoMapper: passthroughMapper,
        validators: { calimero: async () => {} },
        selectors: { calimero: () => 0 }
      })
    },
    ...more
  })
}

async function inTable (js, peer) {
  await until('js to have ours in its table', async () => {
    for await (const entry of js.services.dht.getClosestPeers(peer.toMultihash().bytes)) {
      if (entry.name === 'FINAL_PEER' && entry.peer.id.equals(peer)) return true
    }
  })
}

const recordsOn = stack => [
  {
    implementation: JS,
    stack,
    feature: 'kademlia: signed provider record',
    direction: 'js to calnet',
    async run (t) {
      const privateKey = await generateKeyPair('Ed25519')
      const js = await kadNode(t, stack, { privateKey })
      const peer = await t.own(ourPeer())
      const connection = await js.dial(multiaddr(address(peer, stack.transport)))
      await inTable(js, connection.remotePeer)
      const blob = blobId(pattern(1234))
      const key = recordKey(NAMED, blob)
      const value = await signRecord({ privateKey, peerId: js.peerId, key, size: 1234 })
      await js.contentRouting.put(key, value)
      const found = await peer.ask('query_blob', { context: base58(NAMED), blob: base58(blob) })
      equal(found, [{ peer: js.peerId.toString(), size: 1234 }], 'providers')
      equal(Buffer.from(await js.contentRouting.get(key)).toString('hex'), value.toString('hex'), 'what js gets')
    }
  },
  {
    implementation: JS,
    stack,
    feature: 'kademlia: signed provider record',
    direction: 'calnet to js',
    async run (t) {
      const js = await kadNode(t, stack)
      const peer = await t.own(ourPeer())
      const connection = await js.dial(multiaddr(address(peer, stack.transport)))
      await inTable(js, connection.remotePeer)
      const blob = await peer.ask('put_blob', { size: 4321 })
      const key = recordKey(NAMED, blobId(pattern(4321)))
      await until('ours to announce', () => peer.ask('announce_blob', { context: base58(NAMED), blob }).then(() => true))
      const value = await js.contentRouting.get(key)
      const record = await readRecord({ publicKey: connection.remotePeer.publicKey, key, value })
      equal(base58(record.peer), peer.peer, 'provider')
      equal([record.size, record.valid, record.left], [4321, true, 0], 'size, signature, bytes left')
    }
  }
]

export const cases = [...[TLS, NOISE, QUIC].flatMap(casesOn), ...[TLS, QUIC].flatMap(recordsOn)]
