// Connections, identify and ping, on every transport, in both directions.

import { multiaddr } from '@multiformats/multiaddr'

import { address, calnetOnce, calnetRun, ourPeer } from '../lib/children.mjs'
import { jsNode } from '../lib/js.mjs'
import { NOISE, QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { check, checkStack, equal, events, until } from '../lib/wait.mjs'

const STREAM = '/calimero/stream/0.0.2'
const AGENT = /^calimero-network\//
const FAMILY = /^\/calimero-network\//

function checkOurs (peer, node) {
  check(AGENT.test(peer.agentVersion), `agent version: ${peer.agentVersion}`)
  check(FAMILY.test(peer.protocolVersion), `protocol version: ${peer.protocolVersion}`)
  check(peer.protocols.includes(STREAM), `protocols: ${peer.protocols}`)
  const told = peer.listenAddrs.map(String)
  for (const listening of node.addresses) {
    const bare = listening.replace(/\/p2p\/.*/, '')
    check(told.some(address => address.startsWith(bare)), `${bare} is not among ${told}`)
  }
}

function checkTheirs (identity, js) {
  check(identity.agent_version.startsWith('js-libp2p/'), `agent version: ${identity.agent_version}`)
  equal(identity.protocol_version, 'ipfs/0.1.0', 'protocol version')
  check(identity.protocols.includes('/ipfs/ping/1.0.0'), `protocols: ${identity.protocols}`)
  const told = identity.listening.map(address => address.replace(/\/p2p\/.*/, ''))
  for (const listening of js.getMultiaddrs()) {
    const bare = listening.toString().replace(/\/p2p\/.*/, '')
    check(told.includes(bare), `${bare} is not among ${told}`)
  }
}

function casesOn (stack) {
  const out = { implementation: JS, stack, direction: 'calnet to js' }
  const back = { implementation: JS, stack, direction: 'js to calnet' }
  return [
    {
      ...out,
      feature: 'dial',
      async run (t) {
        const js = await t.js(stack)
        const node = await t.own(calnetRun({ dial: [String(js.getMultiaddrs()[0])] }))
        const connected = await node.event('connected')
        equal(connected.peer, js.peerId.toString(), 'peer')
        checkStack(connected, stack)
      }
    },
    {
      ...back,
      feature: 'dial',
      async run (t) {
        const js = await t.js(stack, { listen: [] })
        const node = await t.own(calnetRun())
        const connection = await js.dial(multiaddr(address(node, stack.transport)))
        equal(connection.remotePeer.toString(), node.peer, 'peer')
        checkStack(await node.event('connected'), stack)
      }
    },
    {
      ...out,
      feature: 'identify',
      async run (t) {
        const js = await t.js(stack)
        const peer = await t.own(ourPeer())
        await peer.ask('dial', { address: String(js.getMultiaddrs()[0]) })
        checkTheirs(await peer.ask('identified', { peer: js.peerId.toString() }), js)
      }
    },
    {
      ...back,
      feature: 'identify',
      async run (t) {
        const js = await t.js(stack, { listen: [] })
        const next = events(js, 'peer:identify')
        const node = await t.own(calnetRun())
        await js.dial(multiaddr(address(node, stack.transport)))
        checkOurs(await next(), node)
      }
    },
    {
      ...out,
      feature: 'ping',
      async run (t) {
        const js = await t.js(stack)
        const report = await calnetOnce('probe', String(js.getMultiaddrs()[0]))
        equal(report.peer, js.peerId.toString(), 'peer')
        check(report.ping_min_ms > 0, 'no time')
      }
    },
    {
      ...back,
      feature: 'ping',
      async run (t) {
        const js = await t.js(stack, { listen: [] })
        const node = await t.own(calnetRun())
        const connection = await js.dial(multiaddr(address(node, stack.transport)))
        for (let ping = 0; ping < 5; ping++) {
          check(await js.services.ping.ping(connection.remotePeer) >= 0, 'no time')
        }
      }
    },
    {
      ...out,
      feature: 'disconnect is seen',
      async run (t) {
        const js = await t.js(stack)
        // On a local network ours would dial again at once.
        const peer = await t.own(ourPeer({ local: false }))
        await peer.ask('dial', { address: String(js.getMultiaddrs()[0]) })
        await until('js to see the connection', () => js.getConnections().length === 1)
        await peer.ask('disconnect', { peer: js.peerId.toString() })
        await until('js to see the end', () => js.getConnections().length === 0)
      }
    },
    {
      ...back,
      feature: 'disconnect is seen',
      async run (t) {
        const js = await t.js(stack, { listen: [] })
        const node = await t.own(calnetRun())
        const connection = await js.dial(multiaddr(address(node, stack.transport)))
        await node.event('connected')
        await connection.close()
        await node.event('disconnected')
      }
    }
  ]
}

export const cases = [TLS, NOISE, QUIC].flatMap(casesOn)
