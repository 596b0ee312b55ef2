// The page: connects to a node, subscribes to a topic, sends messages and fetches blobs.

import { multiaddr } from '@multiformats/multiaddr'
import { base58btc } from 'multiformats/bases/base58'

import { fetchBlob } from './blob.js'
import { startNode } from './node.js'

const CONTEXT_BYTES = 32

const element = id => document.getElementById(id)
const input = id => element(id).value.trim()

/** Adds a record to the page. */
function log (event, text) {
  const line = document.createElement('li')
  line.dataset.event = event
  line.textContent = text
  element('log').append(line)
}

/** 32 bytes that are written in base58, as ids of blobs and contexts are. */
function id (text) {
  const bytes = base58btc.decode(`z${text}`)
  if (bytes.length !== CONTEXT_BYTES) throw new Error(`${text} is not an id`)
  return bytes
}

/** Runs `action` when the form `name` is submitted, and shows its error. */
function onSubmit (name, action) {
  element(name).addEventListener('submit', async event => {
    event.preventDefault()
    try {
      await action()
    } catch (error) {
      console.error(error)
      // A WebSocket that cannot be opened is an event without a message.
      log('error', `${name}: ${error.message ?? 'the connection failed'}`)
    }
  })
}

const node = await startNode()
const { pubsub } = node.services
let connection

pubsub.addEventListener('message', ({ detail }) => {
  const text = new TextDecoder().decode(detail.data)
  log('message', `${detail.from}: ${text}`)
})
pubsub.addEventListener('subscription-change', ({ detail }) => {
  for (const { topic, subscribe } of detail.subscriptions) {
    if (subscribe) log('subscribed', `${detail.peerId} subscribed to ${topic}`)
  }
})
node.addEventListener('peer:disconnect', ({ detail }) => log('disconnected', `${detail} disconnected`))

onSubmit('connect', async () => {
  connection = await node.dial(multiaddr(input('address')))
  log('connected', `connected to ${connection.remotePeer} at ${connection.remoteAddr}`)
})

onSubmit('subscribe', async () => {
  pubsub.subscribe(input('topic'))
  log('topic', `this page subscribed to ${input('topic')}`)
})

onSubmit('publish', async () => {
  const message = new TextEncoder().encode(input('message'))
  const { recipients } = await pubsub.publish(input('topic'), message)
  log('published', `sent to ${recipients.length} peers`)
})

onSubmit('fetch', async () => {
  if (connection === undefined) throw new Error('not connected')
  const bar = element('progress')
  const content = await fetchBlob(connection, {
    id: id(input('blob')),
    // The context decides who may read a blob. Without access control any context will do.
    context: input('context') === '' ? new Uint8Array(CONTEXT_BYTES) : id(input('context')),
    onProgress: (have, all) => Object.assign(bar, { value: have, max: all || 1 })
  })
  const link = element('download')
  URL.revokeObjectURL(link.href)
  link.href = URL.createObjectURL(new Blob([content]))
  link.hidden = false
  log('fetched', `${content.length} bytes, all verified`)
})

log('started', `this page is ${node.peerId}`)
