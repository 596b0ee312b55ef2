// What the nodes are made to do.

import { randomBytes } from 'node:crypto'
import { performance } from 'node:perf_hooks'

import { check, until } from '../../lib/wait.mjs'
import { APPLICATION } from './node.mjs'

/** Seconds in which a write has to be visible on the other node. */
const SEEN_SECONDS = 60
/** Seconds in which a node that works answers. */
const ANSWER_SECONDS = 10
const ALTERNATING = 20
const BLOB_BYTES = 3 * 1024 * 1024

async function seconds (action) {
  const start = performance.now()
  const value = await action()
  return [value, (performance.now() - start) / 1000]
}

export function median (values) {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)]
}

/** Installs the application on `node` and creates a context with one value in it. */
export async function create (node) {
  const installed = await node.post('/admin-api/install-dev-application', {
    path: APPLICATION,
    metadata: [],
    package: 'org.calimero.network.key-value',
    version: '1.0.0'
  })
  const namespace = await node.post('/admin-api/namespaces', {
    applicationId: installed.applicationId,
    upgradePolicy: 'Automatic'
  })
  const created = await node.post('/admin-api/contexts', {
    applicationId: installed.applicationId,
    contextSeed: null,
    initializationParams: [],
    groupId: namespace.namespaceId,
    identitySecret: null
  })
  await node.call(created.contextId, 'set', { key: 'first', value: 'one' })
  return { namespace: namespace.namespaceId, context: created.contextId, application: installed.applicationId }
}

/** Invites `guest` and joins it. Gives the seconds of the join. */
export async function join (host, guest, { namespace, context }) {
  const invitation = await host.post(`/admin-api/namespaces/${namespace}/invite`, {})
  const [, took] = await seconds(async () => {
    await guest.post(`/admin-api/namespaces/${namespace}/join`, invitation)
    await until('the context', () => guest.post(`/admin-api/contexts/${context}/join`, {}), SEEN_SECONDS)
  })
  return took
}

/** Seconds until `node` reads `value` at `key`. */
export async function reads (node, context, method, key, value, limit = SEEN_SECONDS) {
  const [, took] = await seconds(() => until(
    `${method} ${key} on the ${node.layer} node`,
    async () => await node.call(context, method, { key }, limit) === value,
    limit
  ))
  return took
}

/** Milliseconds from the answer to a write until the other node reads it, of each of 20 writes. */
export async function alternating (one, other, context) {
  const times = []
  for (let at = 0; at < ALTERNATING; at++) {
    const [from, to] = at % 2 === 0 ? [one, other] : [other, one]
    const [key, value] = [`alternating-${at}`, String(at)]
    await from.call(context, 'set', { key, value })
    times.push(1000 * await reads(to, context, 'get', key, value))
  }
  return times
}

/** Seconds until a value of `kib` KiB that `from` writes is read by `to`. */
export async function large (from, to, context, kib) {
  const key = `${kib} KiB from ${from.layer} ${from.peer}`
  await from.call(context, 'fill', { key, length: kib * 1024 })
  return reads(to, context, 'length', key, kib * 1024)
}

/** Seconds in which `to` finds and fetches a blob of `from` by the DHT. */
export async function blob (from, to, context) {
  const content = randomBytes(BLOB_BYTES)
  const put = await from.request('PUT', `/admin-api/blobs?context_id=${context}`, content)
  const id = (await put.json()).data.blob_id
  const [bytes, took] = await seconds(async () => {
    const got = await to.request('GET', `/admin-api/blobs/${id}?context_id=${context}`)
    return Buffer.from(await got.arrayBuffer())
  })
  check(content.equals(bytes), 'the blob is another one')
  return took
}

/**
 * `count` writes from all nodes at once. Gives the seconds until all nodes have all of them. An
 * error contains the number of nodes on which reads and the network still work.
 */
export async function concurrent (nodes, context, count, limit) {
  try {
    return await written(nodes, context, count, limit)
  } catch (error) {
    const reading = await answering(nodes, node => node.call(context, 'count', {}, ANSWER_SECONDS))
    const network = await answering(nodes, async node => {
      const { count } = await node.get('/admin-api/peers', ANSWER_SECONDS)
      check(count > 0, 'no peer')
    })
    const still = `reads answered by ${reading}, network with peers on ${network}`
    throw new Error(`${error.message}; of ${nodes.length} nodes: ${still}`)
  }
}

async function answering (nodes, ask) {
  const asked = await Promise.allSettled(nodes.map(ask))
  return asked.filter(one => one.status === 'fulfilled').length
}

async function written (nodes, context, count, limit) {
  const before = await nodes[0].call(context, 'count')
  const [, took] = await seconds(async () => {
    const writes = Array.from({ length: count }, (_, at) => {
      const node = nodes[at % nodes.length]
      return node.call(context, 'set', { key: `concurrent-${at}`, value: String(at) }, limit)
    })
    await Promise.all(writes)
    for (const node of nodes) {
      await until(`${count} writes on the ${node.layer} node`, async () =>
        await node.call(context, 'count', {}, limit) === before + count, limit)
    }
  })
  return took
}
