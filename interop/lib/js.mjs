// Nodes of js-libp2p.

import { quic } from '@chainsafe/libp2p-quic'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

import { LOOPBACK } from './children.mjs'

const ENCRYPTERS = { tls, noise }

/**
 * A node of js-libp2p on `stack`, that is one transport and, on TCP, one way to secure it, so that
 * nothing else can be agreed on.
 */
export async function jsNode (stack, { listen, services = {}, transports = [], ...rest } = {}) {
  const { transport, security } = stack
  return createLibp2p({
    addresses: { listen: listen ?? [LOOPBACK[transport]] },
    transports: [transport === 'quic' ? quic() : tcp(), ...transports],
    // QUIC brings its own; a relayed connection needs them on top of QUIC as well.
    connectionEncrypters: [ENCRYPTERS[security]()],
    streamMuxers: [yamux()],
    services: { identify: identify(), identifyPush: identifyPush(), ping: ping(), ...services },
    ...rest
  })
}
