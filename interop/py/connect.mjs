// Connections, identify and ping, on every transport, in both directions.

import { address, calnetOnce, calnetRun, ourPeer } from '../lib/children.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { PY } from '../lib/versions.mjs'
import { check, checkStack, equal, until } from '../lib/wait.mjs'

const PING = '/ipfs/ping/1.0.0'
const STREAM = '/calimero/stream/0.0.2'

function casesOn (stack) {
  const out = { implementation: PY, stack, direction: 'calnet to py' }
  const back = { implementation: PY, stack, direction: 'py to calnet' }
  const { transport } = stack
  return [
    {
      ...out,
      feature: 'dial',
      async run (t) {
        const py = await t.py(stack)
        const node = await t.own(calnetRun({ dial: [address(py, transport)] }))
        const connected = await node.event('connected')
        equal(connected.peer, py.peer, 'peer')
        checkStack(connected, stack)
      }
    },
    {
      ...back,
      feature: 'dial',
      async run (t) {
        const py = await t.py(stack)
        const node = await t.own(calnetRun())
        equal(await py.ask('dial', { address: address(node, transport) }), node.peer, 'peer')
        const connected = await node.event('connected')
        equal(connected.peer, py.peer, 'peer')
        checkStack(connected, stack)
      }
    },
    {
      ...out,
      feature: 'identify',
      async run (t) {
        const py = await t.py(stack)
        const peer = await t.own(ourPeer())
        await peer.ask('dial', { address: address(py, transport) })
        const told = await peer.ask('identified', { peer: py.peer })
        check(/py-libp2p/.test(told.agent_version), `agent version: ${told.agent_version}`)
        equal(told.protocol_version, 'ipfs/0.1.0', 'protocol version')
        check(told.protocols.includes(PING), `protocols: ${told.protocols}`)
        const bare = address(py, transport).replace(/\/p2p\/.*/, '')
        check(told.listening.some(address => address.startsWith(bare)), `addresses: ${told.listening}`)
      }
    },
    {
      ...back,
      feature: 'identify',
      async run (t) {
        const py = await t.py(stack)
        const node = await t.own(calnetRun())
        await py.ask('dial', { address: address(node, transport) })
        const told = await py.ask('identify', { peer: node.peer })
        check(/^calimero-network\//.test(told.agent_version), `agent version: ${told.agent_version}`)
        check(/^\/calimero-network\//.test(told.protocol_version), `protocol version: ${told.protocol_version}`)
        check(told.protocols.includes(STREAM), `protocols: ${told.protocols}`)
        for (const listening of node.addresses) {
          const bare = listening.replace(/\/p2p\/.*/, '')
          check(told.listening.some(address => address.startsWith(bare)), `addresses: ${told.listening}`)
        }
      }
    },
    {
      ...out,
      feature: 'ping',
      async run (t) {
        const py = await t.py(stack)
        const report = await calnetOnce('probe', address(py, transport))
        equal(report.peer, py.peer, 'peer')
        check(report.ping_min_ms > 0, 'no time')
      }
    },
    {
      ...back,
      feature: 'ping',
      async run (t) {
        const py = await t.py(stack)
        const node = await t.own(calnetRun())
        await py.ask('dial', { address: address(node, transport) })
        equal((await py.ask('ping', { peer: node.peer, count: 5 })).length, 5, 'answered pings')
      }
    },
    {
      ...out,
      feature: 'disconnect is seen',
      async run (t) {
        const py = await t.py(stack)
        // On a local network ours would dial again at once.
        const peer = await t.own(ourPeer({ local: false }))
        await peer.ask('dial', { address: address(py, transport) })
        await until('py to see the connection', async () => (await py.ask('connected')).includes(peer.peer))
        await peer.ask('disconnect', { peer: py.peer })
        await until('py to see the end', async () => !(await py.ask('connected')).includes(peer.peer))
      }
    },
    {
      ...back,
      feature: 'disconnect is seen',
      async run (t) {
        const py = await t.py(stack)
        const node = await t.own(calnetRun())
        await py.ask('dial', { address: address(node, transport) })
        await node.event('connected')
        await py.ask('disconnect', { peer: node.peer })
        await node.event('disconnected')
      }
    }
  ]
}

export const cases = [TLS, NOISE, QUIC].flatMap(casesOn)
