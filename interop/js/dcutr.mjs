// DCUtR: nodes behind a NAT each, met through a relay of ours, connect directly. They stand in
// network namespaces, since js-libp2p tries public addresses alone.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

import { Child, calnetRun } from '../lib/children.mjs'
import { PUBLIC, Segment, unavailable } from '../lib/nats.mjs'
import { QUIC, TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'

const PEER = fileURLToPath(new URL('./dcutr_peer.mjs', import.meta.url))
/** Seconds for a direct connection: js-libp2p tries three times, 5 s each. */
const DIRECT_SECONDS = 20

const PORT = { tcp: '/tcp/2428', quic: '/udp/2428/quic-v1' }
const at = (stack, host) => `/ip4/${host}${PORT[stack.transport]}`
const INSIDE = '192.168.1.2'

/** Two nodes with a slot each, where they have need of one, connected through the relay. */
async function meet (t, { stack, first, open, told }) {
  const segment = new Segment(t, { open })
  const data = await mkdtemp(path.join(tmpdir(), 'interop-'))
  t.defer(() => rm(data, { recursive: true }))
  const relayAt = at(stack, PUBLIC.relay)
  const relay = await t.own(calnetRun({
    command: 'boot', listen: [relayAt], args: ['--external', relayAt, '--data', data], wrap: segment.at('relay')
  }))
  const relayAddress = `${relayAt}/p2p/${relay.peer}`
  const circuit = peer => `${relayAddress}/p2p-circuit/p2p/${peer}`
  const ours = async options => {
    const listen = at(stack, open === 'ours' ? PUBLIC.ours : INSIDE)
    const args = ['--boot', relayAddress, ...(open === 'ours' ? ['--external', listen] : [])]
    return t.own(calnetRun({ listen: [listen], args, wrap: segment.at('ours'), ...options }))
  }
  const theirs = async dial => {
    const listen = at(stack, open === 'theirs' ? PUBLIC.theirs : INSIDE)
    const announce = open === 'theirs' ? [listen] : []
    const settings = JSON.stringify({ stack, listen, announce, relay: relayAddress, dial, told })
    const [command, ...args] = [...segment.at('theirs'), process.execPath, PEER, settings]
    const child = await t.own(new Child(command, args))
    child.peer = (await child.event('started')).peer
    return child
  }
  if (first === 'calnet') {
    const js = await theirs()
    return { js, node: await ours({ dial: [circuit(js.peer)] }) }
  }
  const node = await ours()
  await node.event('relay', line => line.reserved)
  return { node, js: await theirs(circuit(node.peer)) }
}

const NOT_DIRECT = 'connected through the relay and not directly'

async function becomeDirect (t, how) {
  const { node, js } = await meet(t, how)
  const connected = (of, peer, path) =>
    of.event('connected', line => line.peer === peer && line.path === path, DIRECT_SECONDS)
  await connected(js, node.peer, 'relayed')
  try {
    await connected(node, js.peer, 'direct')
    await connected(js, node.peer, 'direct')
  } catch (error) {
    throw new Error(`${NOT_DIRECT}: ${error.message}`)
  }
}

const PORTS = 'js-libp2p does not dial from its listening port: over TCP because Node has no `SO_REUSEPORT`, over ' +
  'QUIC because it uses a separate socket. Its source port is not known in advance. A NAT that filters ' +
  'by port accepts its packets only if the application confirms the observed address of the QUIC socket' +
  ' itself ([js-libp2p 2620](https://github.com/libp2p/js-libp2p/issues/2620), [test-plans ' +
  '864](https://github.com/libp2p/test-plans/pull/864)).'

function one (stack, first, rest) {
  return {
    implementation: JS,
    stack,
    direction: first === 'calnet' ? 'calnet to js' : 'js to calnet',
    skip: unavailable,
    run: t => becomeDirect(t, { stack, first, ...rest }),
    ...rest
  }
}

const both = (stack, rest) => ['calnet', 'js'].map(first => one(stack, first, rest))

export const cases = [
  ...[TLS, QUIC].flatMap(stack => [
    one(stack, 'calnet', { feature: 'dcutr: js behind a NAT dials back', open: 'ours' }),
    one(stack, 'js', { feature: 'dcutr: calnet behind a NAT dials back', open: 'theirs' })
  ]),
  ...both(QUIC, { feature: 'dcutr: both behind NATs, js confirms where it is seen', told: true }),
  ...both(QUIC, { feature: 'dcutr: both behind NATs', fails: PORTS, failure: NOT_DIRECT }),
  ...both(TLS, { feature: 'dcutr: both behind NATs', fails: PORTS, failure: NOT_DIRECT })
]
