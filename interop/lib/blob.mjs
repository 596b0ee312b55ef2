// Blobs as `blob/0.0.2` moves them, and the records that name their providers, written from the
// description of the wire alone.

import { createHash } from 'node:crypto'

import { publicKeyToProtobuf } from '@libp2p/crypto/keys'

import { Frames } from './frames.mjs'

export const PROTOCOL = '/calimero/blob/0.0.2'
const CHUNK_BYTES = 1024 * 1024
const DOMAIN = 'calimero:dht:blob-provider:v1'
const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

const sha256 = bytes => createHash('sha256').update(bytes).digest()

export function base58 (bytes) {
  let number = BigInt('0x' + (Buffer.from(bytes).toString('hex') || '0'))
  let text = ''
  for (; number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text
  for (const byte of bytes) {
    if (byte !== 0) break
    text = '1' + text
  }
  return text
}

function * chunks (content) {
  for (let at = 0; at < content.length; at += CHUNK_BYTES) yield content.subarray(at, at + CHUNK_BYTES)
}

/** The hash of the hashes of the chunks. */
export function blobId (content) {
  return sha256(Buffer.concat([...chunks(content)].map(sha256)))
}

function u32 (value) {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function u64 (value) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

const borshBytes = bytes => Buffer.concat([u32(bytes.length), bytes])

function borshChunk (frame) {
  const view = Buffer.from(frame)
  const length = view.readUInt32LE(0)
  if (length !== view.length - 4) throw new Error(`a chunk of ${length} bytes in a frame of ${view.length}`)
  return view.subarray(4)
}

/** Answers one request on a stream with what `blobs`, by base58 id, holds. Gives the request. */
export async function provide (stream, blobs) {
  const frames = new Frames(stream)
  const request = JSON.parse(Buffer.from(await frames.next()).toString())
  const content = blobs[request.blob_id]
  const found = content !== undefined
  await frames.send(Buffer.from(JSON.stringify({ found, size: found ? content.length : null })))
  if (found) {
    for (const chunk of chunks(content)) await frames.send(borshBytes(chunk))
    await frames.send(borshBytes(Buffer.alloc(0)))
  }
  await frames.close()
  return request
}

/** Asks for a blob on a stream: its content, or nothing where the provider has none. */
export async function request (stream, { blob, context, auth = null }) {
  const frames = new Frames(stream)
  const asked = { blob_id: base58(blob), context_id: base58(context), auth }
  await frames.send(Buffer.from(JSON.stringify(asked)))
  const answer = JSON.parse(Buffer.from(await frames.next()).toString())
  if (!answer.found) return { answer }
  const parts = []
  for (let frame; (frame = await frames.next()) !== undefined;) {
    const chunk = borshChunk(frame)
    if (chunk.length === 0) break
    parts.push(chunk)
  }
  const end = await frames.next()
  await frames.close()
  return { answer, content: Buffer.concat(parts), closed: end === undefined }
}

/** `context ‖ blob`, under which providers of a blob are found. */
export const recordKey = (context, blob) => Buffer.concat([context, blob])

function signedMessage (key, peer, size) {
  return Buffer.concat([
    Buffer.from(DOMAIN), u64(key.length), key, u64(peer.length), peer, u64(size)
  ])
}

/** A record that says that `peerId`, whose key signs it, has a blob of `size` bytes. */
export async function signRecord ({ privateKey, peerId, key, size }) {
  const peer = Buffer.from(peerId.toMultihash().bytes)
  const signature = Buffer.from(await privateKey.sign(signedMessage(key, peer, size)))
  const publicKey = Buffer.from(publicKeyToProtobuf(privateKey.publicKey))
  return Buffer.concat([borshBytes(peer), u64(size), borshBytes(publicKey), borshBytes(signature)])
}

/** What a record says, once its signature is verified by `publicKey`. */
export async function readRecord ({ publicKey, key, value }) {
  let rest = Buffer.from(value)
  const take = length => {
    const part = rest.subarray(0, length)
    rest = rest.subarray(length)
    return part
  }
  const takeBytes = () => take(take(4).readUInt32LE(0))
  const peer = takeBytes()
  const size = take(8).readBigUInt64LE(0)
  takeBytes()
  const signature = takeBytes()
  const valid = await publicKey.verify(signedMessage(key, peer, size), signature)
  return { peer, size: Number(size), valid, left: rest.length }
}
