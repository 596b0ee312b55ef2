// A node of js-libp2p in a process of its own, for a place that only a process can be at.
//
//   node dcutr_peer.mjs '{"stack": {..}, "listen": "/ip4/..", "relay": "/ip4/..", "dial": "/ip4/.."}'
//
// It has a slot on the relay, dials what is to be dialled, and prints what becomes of its
// connections, a JSON object a line. It ends with its standard input.

import '../lib/polyfill.mjs'

import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { dcutr } from '@libp2p/dcutr'
import { multiaddr } from '@multiformats/multiaddr'

import { jsNode } from '../lib/js.mjs'
import { until } from '../lib/wait.mjs'

const { stack, listen, announce, relay, dial, told } = JSON.parse(process.argv[2])
const say = line => console.log(JSON.stringify(line))

const js = await jsNode(stack, {
  addresses: { listen: [listen, `${relay}/p2p-circuit`], appendAnnounce: announce },
  transports: [circuitRelayTransport()],
  services: { dcutr: dcutr() }
})
js.addEventListener('connection:open', ({ detail }) => say({
  event: 'connected',
  peer: detail.remotePeer.toString(),
  path: detail.remoteAddr.toString().includes('/p2p-circuit') ? 'relayed' : 'direct',
  address: detail.remoteAddr.toString()
}))
const { addressManager } = js.components
await until('a slot', () => js.getMultiaddrs().some(one => one.toString().includes('/p2p-circuit')))
if (told) {
  // What others see is offered to nobody before it is confirmed, which behind a NAT it never is.
  const seen = await until('what the relay sees', () => addressManager.getObservedAddrs()[0])
  addressManager.confirmObservedAddr(seen)
}
say({ event: 'started', peer: js.peerId.toString(), addresses: js.getMultiaddrs().map(String) })
if (dial !== undefined) await js.dial(multiaddr(dial))
process.stdin.resume().on('end', () => process.exit(0))
