// Circuit relay v2: nodes reached through a relay of the other implementation.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { multiaddr } from '@multiformats/multiaddr'

import { address, calnetOnce, calnetRun, ourPeer } from '../lib/children.mjs'
import { Frames, pattern } from '../lib/frames.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { check, equal, until } from '../lib/wait.mjs'

const STREAM = '/calimero/stream/0.0.2'
/** Below the 128 KiB that a circuit carries by default, both ways together. */
const FRAME_BYTES = 30_000

async function jsRelay (t, stack) {
  const relay = await t.js(stack, { services: { relay: circuitRelayServer() } })
  return `${relay.getMultiaddrs()[0]}/p2p-circuit`
}

/** A node of js that listens only through `circuit` and echoes frames. */
async function jsBehind (t, stack, circuit) {
  const js = await t.js(stack, { listen: [circuit], transports: [circuitRelayTransport()] })
  await js.handle(STREAM, async stream => {
    const frames = new Frames(stream)
    for (let payload; (payload = await frames.next()) !== undefined;) await frames.send(payload)
    await frames.close()
  }, { runOnLimitedConnection: true })
  const reserved = () => js.getMultiaddrs().find(address => address.toString().includes('/p2p-circuit'))
  await until('a reservation of js', reserved)
  return { js, address: `${circuit}/p2p/${js.peerId}` }
}

/** js opens a stream to our peer at `address`, through a relay, and gets its frames back. */
async function jsReaches (t, stack, address, peer) {
  const js = await t.js(stack, { listen: [], transports: [circuitRelayTransport()] })
  const connection = await js.dial(multiaddr(address))
  equal(connection.remotePeer.toString(), peer, 'peer')
  check(connection.limits !== undefined, 'the connection is not relayed')
  const frames = new Frames(await connection.newStream(STREAM, { runOnLimitedConnection: true }))
  const sent = pattern(FRAME_BYTES)
  await frames.send(sent)
  check(Buffer.compare(await frames.next(), sent) === 0, 'other bytes came back')
  await frames.close()
}

function casesOn (stack) {
  return [
    {
      implementation: JS,
      stack,
      feature: 'relay of js: ours reached through it',
      direction: 'js to calnet',
      async run (t) {
        const circuit = await jsRelay(t, stack)
        const peer = await t.own(ourPeer({ listen: [circuit] }))
        await jsReaches(t, stack, `${circuit}/p2p/${peer.peer}`, peer.peer)
      }
    },
    {
      implementation: JS,
      stack,
      feature: 'relay of js: js reached through it',
      direction: 'calnet to js',
      async run (t) {
        const { js, address } = await jsBehind(t, stack, await jsRelay(t, stack))
        const report = await calnetOnce('probe', address)
        equal(report.path, 'relayed', 'path')
        const peer = await t.own(ourPeer())
        const connection = await peer.ask('dial', { address })
        check(connection.relayed, 'the connection is not relayed')
        await peer.ask('frames', { peer: js.peerId.toString(), sizes: [FRAME_BYTES] })
      }
    }
  ]
}

/** A boot node of ours, whose relay nodes on this machine may use. */
async function ourRelay (t, stack) {
  const data = await mkdtemp(path.join(tmpdir(), 'interop-'))
  t.defer(() => rm(data, { recursive: true }))
  const boot = await t.own(calnetRun({ command: 'boot', args: ['--local', '--data', data] }))
  return `${address(boot, stack.transport)}/p2p-circuit`
}

function casesOfOurs (stack) {
  return [
    {
      implementation: JS,
      stack,
      feature: 'relay of calnet: js reached through it',
      direction: 'calnet to js',
      async run (t) {
        const { js, address } = await jsBehind(t, stack, await ourRelay(t, stack))
        const peer = await t.own(ourPeer())
        const connection = await peer.ask('dial', { address })
        check(connection.relayed, 'the connection is not relayed')
        await peer.ask('frames', { peer: js.peerId.toString(), sizes: [FRAME_BYTES] })
      }
    },
    {
      implementation: JS,
      stack,
      feature: 'relay of calnet: js reached through it',
      direction: 'js to js',
      async run (t) {
        const { js, address } = await jsBehind(t, stack, await ourRelay(t, stack))
        await jsReaches(t, stack, address, js.peerId.toString())
      }
    },
    {
      implementation: JS,
      stack,
      feature: 'relay of calnet: ours reached through it',
      direction: 'js to calnet',
      async run (t) {
        const circuit = await ourRelay(t, stack)
        const peer = await t.own(ourPeer({ listen: [circuit] }))
        await jsReaches(t, stack, `${circuit}/p2p/${peer.peer}`, peer.peer)
      }
    }
  ]
}

export const cases = [TLS, NOISE, QUIC].flatMap(stack => [...casesOn(stack), ...casesOfOurs(stack)])
