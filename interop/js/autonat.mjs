// AutoNAT v2: whether an address is reached from outside, each asking the other. js-libp2p asks
// and answers for public addresses alone, so these run where such addresses are on the loopback
// interface of a network namespace; `.ci/interop` makes one where it may.

import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'

import { autoNATv2 } from '@libp2p/autonat-v2'
import { multiaddr } from '@multiformats/multiaddr'

import { calnetRun } from '../lib/children.mjs'
import { TLS } from '../lib/stacks.mjs'
import { JS } from '../lib/versions.mjs'
import { until } from '../lib/wait.mjs'

const OURS = '45.33.1.1'
const THEIRS = '81.2.3.4'

function skip () {
  const here = Object.values(networkInterfaces()).flat().map(one => one.address)
  if (!here.includes(OURS) || !here.includes(THEIRS)) return 'no public addresses in a namespace here'
}

async function freePort (host) {
  const server = createServer()
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, host, resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}

export const cases = [
  {
    implementation: JS,
    stack: TLS,
    feature: 'autonat: an address is found to be reachable',
    direction: 'calnet to js',
    skip,
    async run (t) {
      const js = await t.js(TLS, { listen: [`/ip4/${THEIRS}/tcp/0`], services: { autonat: autoNATv2() } })
      // Not among those that it tells, before somebody has confirmed it.
      const [listening] = js.components.transportManager.getAddrs()
      const dial = [`${listening}/p2p/${js.peerId}`]
      const node = await t.own(calnetRun({ listen: [`/ip4/${OURS}/tcp/0`], dial }))
      await node.event('external', line => line.confirmed && line.address.includes(OURS))
    }
  },
  {
    implementation: JS,
    stack: TLS,
    feature: 'autonat: an address is found to be reachable',
    direction: 'js to calnet',
    skip,
    async run (t) {
      const listening = `/ip4/${OURS}/tcp/${await freePort(OURS)}`
      // A node that knows that it is reachable answers those who do not know of themselves.
      const node = await t.own(calnetRun({ listen: [listening], args: ['--external', listening] }))
      const js = await t.js(TLS, { listen: [`/ip4/${THEIRS}/tcp/0`], services: { autonat: autoNATv2() } })
      await js.dial(multiaddr(`${listening}/p2p/${node.peer}`))
      const { addressManager } = js.components
      await until('js to confirm its address', () => addressManager.getAddressesWithMetadata()
        .some(one => one.verified && one.multiaddr.toString().includes(THEIRS)))
    }
  }
]
