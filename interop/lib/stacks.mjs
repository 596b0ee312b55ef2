// What a connection is made of: transport, security, multiplexer.

export const TLS = { transport: 'tcp', security: 'tls', muxer: 'yamux' }
export const NOISE = { transport: 'tcp', security: 'noise', muxer: 'yamux' }
export const QUIC = { transport: 'quic', security: 'tls', muxer: 'quic' }
