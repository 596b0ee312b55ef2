// Kademlia under this network's own name, each finding peers by way of the other.

import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { multiaddr } from '@multiformats/multiaddr'

import { address, calnetRun } from '../lib/children.mjs'
import { QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { check, until, withDeadline } from '../lib/wait.mjs'

const PROTOCOL = '/calimero/kad/1.0.0'

/** A node of js that serves Kademlia and keeps private addresses. */
async function kadNode (t, stack) {
  return t.js(stack, {
    services: {
      dht: kadDHT({ protocol: PROTOCOL, clientMode: false, peerInfoMapper: passthroughMapper })
    }
  })
}

const casesOn = stack => [
  {
    implementation: JS,
    stack,
    feature: 'kademlia: a peer is found through the other',
    direction: 'js to calnet',
    async run (t) {
      const node = await t.own(calnetRun({ args: ['--local'] }))
      const [first, second] = [await kadNode(t, stack), await kadNode(t, stack)]
      for (const js of [first, second]) {
        await js.dial(multiaddr(address(node, stack.transport)))
        await node.event('identified', line => line.peer === js.peerId.toString())
      }
      await until('js to have ours in its table', () => first.services.dht.routingTable.size > 0)
      const found = await withDeadline(first.peerRouting.findPeer(second.peerId), 30, 'finding a peer')
      const [listening] = second.getMultiaddrs().map(a => a.toString().replace(/\/p2p\/.*/, ''))
      check(found.multiaddrs.some(a => a.toString().startsWith(listening)), `${found.multiaddrs}`)
    }
  },
  {
    implementation: JS,
    stack,
    feature: 'kademlia: a peer is found through the other',
    direction: 'calnet to js',
    async run (t) {
      const [first, second] = [await kadNode(t, stack), await kadNode(t, stack)]
      await second.dial(first.getMultiaddrs())
      await until('js to serve js', async () => {
        for await (const entry of first.services.dht.getClosestPeers(second.peerId.toMultihash().bytes)) {
          if (entry.name === 'FINAL_PEER' && entry.peer.id.equals(second.peerId)) return true
        }
      })
      const node = await t.own(calnetRun({ args: ['--local', '--boot', String(first.getMultiaddrs()[0])] }))
      // Ours looks up its own id when it starts, and meets on the way whom js knows.
      await node.event('connected', connected => connected.peer === second.peerId.toString())
    }
  }
]

export const cases = [TLS, QUIC].flatMap(casesOn)
