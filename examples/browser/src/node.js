// A node of js-libp2p for browsers that speaks what a `calnet` node speaks.

import { gossipsub } from '@libp2p/gossipsub'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

const LOCAL = new Set(['localhost', '127.0.0.1', '[::1]'])

/** Starts a node. It listens on nothing, because browsers cannot, and dials WebSocket addresses. */
export async function startNode () {
  // js-libp2p refuses to dial `ws` and private addresses from pages. A page on this machine may.
  const isLocal = LOCAL.has(location.hostname)
  return createLibp2p({
    transports: [webSockets()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionGater: isLocal ? { denyDialMultiaddr: () => false } : {},
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      ping: ping(),
      // A calnet node accepts only messages that their author signed.
      pubsub: gossipsub({ globalSignaturePolicy: 'StrictSign' })
    }
  })
}
