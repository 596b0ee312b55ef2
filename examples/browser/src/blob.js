// A requester of `/calimero/blob/1.0.0`, written from docs/protocol.md. It verifies every byte: the
// hashes of the chunks against the id of the blob, and each chunk against its hash.

import { Frames, bytes, number, reader } from './frames.js'

export const PROTOCOL = '/calimero/blob/1.0.0'

const CHUNK_BYTES = 1_048_576
/** Largest content that is sent in the first answer, in bytes. */
const MAX_INLINE = 65_536
/** Largest number of chunks of one request. 16 MiB are then in memory twice. */
const CHUNKS_PER_READ = 16
/** Largest blob that this page takes, in bytes. All of it is kept in memory. */
const MAX_BLOB_BYTES = 256 * CHUNK_BYTES
/** Longest frame of a provider, in bytes: a chunk with its header. */
const MAX_FRAME = 1_048_592

const HELLO = 0x00
const GET = 0x01
const READ = 0x02
const LIST = 0x80
const INLINE = 0x81
const CHUNK = 0x82
const REFUSED = 0x83

const REASONS = ['not found', 'busy', 'the provider failed']

async function sha256 (...parts) {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes(...parts)))
}

const equal = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at])

/** The id of the blob whose chunks have these hashes. */
async function idOf (hashes) {
  return sha256(...hashes)
}

/**
 * Fetches the blob `id` (32 bytes) of `context` (32 bytes) over `connection`. `onProgress` receives
 * the number of verified bytes and of all bytes. Throws if the provider has no such blob, or sends
 * anything that does not verify.
 */
export async function fetchBlob (connection, { id, context, onProgress = () => {} }) {
  const stream = await connection.newStream(PROTOCOL)
  const frames = new Frames(stream, MAX_FRAME)
  try {
    // Without authentication: public blobs need none.
    await frames.send(bytes([HELLO], context, [0x00]))
    const first = await get(frames, id, 0)
    if (first.inline !== undefined) {
      const hashes = first.inline.length === 0 ? [] : [await sha256(first.inline)]
      if (!equal(await idOf(hashes), id)) throw new Error('the content is not that of the blob')
      onProgress(first.inline.length, first.inline.length)
      return first.inline
    }
    const list = await allHashes(frames, id, first)
    const content = await allChunks(frames, id, list, onProgress)
    await stream.close()
    return content
  } catch (error) {
    stream.abort(error)
    throw error
  }
}

/** Asks for the content or for the hashes from `from` on. */
async function get (frames, id, from) {
  await frames.send(bytes([GET], id, number(MAX_INLINE), number(from)))
  const { kind, read } = await answer(frames)
  if (kind === INLINE && from === 0) return { inline: read.rest() }
  if (kind !== LIST) throw new Error(`message ${kind} instead of the hashes`)
  const size = read.number()
  const index = read.number()
  const rest = read.rest()
  if (size > MAX_BLOB_BYTES) throw new Error(`the blob has ${size} bytes, more than ${MAX_BLOB_BYTES}`)
  if (index !== from || rest.length === 0 || rest.length % 32 !== 0) throw new Error('a list without hashes')
  const hashes = []
  for (let at = 0; at < rest.length; at += 32) hashes.push(rest.subarray(at, at + 32))
  return { size, hashes }
}

async function allHashes (frames, id, { size, hashes }) {
  const count = Math.ceil(size / CHUNK_BYTES)
  while (hashes.length < count) {
    const more = await get(frames, id, hashes.length)
    if (more.size !== size) throw new Error('the size of the blob changed')
    hashes.push(...more.hashes)
  }
  if (hashes.length !== count) throw new Error(`${hashes.length} hashes for ${size} bytes`)
  if (!equal(await idOf(hashes), id)) throw new Error('the hashes are not those of the blob')
  return { size, hashes }
}

async function allChunks (frames, id, { size, hashes }, onProgress) {
  const parts = []
  let have = 0
  for (let from = 0; from < hashes.length; from += CHUNKS_PER_READ) {
    const count = Math.min(CHUNKS_PER_READ, hashes.length - from)
    await frames.send(bytes([READ], id, number(1), number(from), number(count)))
    for (let index = from; index < from + count; index++) {
      const { kind, read } = await answer(frames)
      if (kind !== CHUNK || read.number() !== index) throw new Error('another message than the next chunk')
      const chunk = read.rest()
      const isLast = index === hashes.length - 1
      if (!isLast && chunk.length !== CHUNK_BYTES) throw new Error(`chunk ${index} is too short`)
      if (!equal(await sha256(chunk), hashes[index])) throw new Error(`chunk ${index} has another hash`)
      parts.push(chunk)
      have += chunk.length
      onProgress(have, size)
    }
  }
  return bytes(...parts)
}

async function answer (frames) {
  const frame = await frames.next()
  if (frame === undefined) throw new Error('the provider closed the stream')
  const read = reader(frame)
  const kind = read.byte()
  if (kind === REFUSED) throw new Error(`refused: ${REASONS[read.byte()] ?? 'unknown reason'}`)
  return { kind, read }
}
