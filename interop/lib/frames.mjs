// Frames as `stream/0.0.2` and `blob/0.0.2` carry them, written from docs/protocol.md alone: four bytes
// of big-endian length, then the payload.

/** Largest payload of a frame, in bytes. */
export const MAX_PAYLOAD = 8 * 1024 * 1024

/** What js-libp2p is given at once, in bytes: below every frame limit of a multiplexer. */
const WRITE_BYTES = 256 * 1024

export function prefix (length) {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, length)
  return bytes
}

/** Bytes whose value tells their place, as the scripted peer's are. */
export function pattern (length) {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; at++) bytes[at] = at % 251
  return bytes
}

export class Frames {
  #stream
  #parts
  #first
  #rest = new Uint8Array(0)

  constructor (stream) {
    this.#stream = stream
    this.#parts = stream[Symbol.asyncIterator]()
    // Asked for at once: the iterator of js-libp2p waits for ever for an end that came before it
    // was first asked.
    this.#first = this.#parts.next()
    this.#first.catch(() => {})
  }

  #part () {
    const part = this.#first ?? this.#parts.next()
    this.#first = undefined
    return part
  }

  async write (bytes) {
    for (let at = 0; at < bytes.length; at += WRITE_BYTES) {
      if (!this.#stream.send(bytes.subarray(at, at + WRITE_BYTES))) await this.#stream.onDrain()
    }
  }

  /** Bytes in one piece, however many: js-libp2p then sends frames as large as the window. */
  async writeWhole (bytes) {
    if (!this.#stream.send(bytes)) await this.#stream.onDrain()
  }

  async send (payload) {
    await this.write(prefix(payload.length))
    await this.write(payload)
  }

  /** `length` bytes, or nothing if the stream ends before the first of them. */
  async read (length) {
    const whole = new Uint8Array(length)
    let have = 0
    while (have < length) {
      if (this.#rest.length === 0) {
        const { done, value } = await this.#part()
        if (done) {
          if (have === 0) return undefined
          throw new Error(`cut after ${have} of ${length} bytes`)
        }
        this.#rest = value.subarray()
        continue
      }
      const taken = this.#rest.subarray(0, length - have)
      whole.set(taken, have)
      have += taken.length
      this.#rest = this.#rest.subarray(taken.length)
    }
    return whole
  }

  /** The next payload, or nothing at a clean end. */
  async next () {
    const head = await this.read(4)
    if (head === undefined) return undefined
    const length = new DataView(head.buffer).getUint32(0)
    if (length > MAX_PAYLOAD) {
      const error = new Error(`a frame of ${length} bytes`)
      this.#stream.abort(error)
      throw error
    }
    if (length === 0) return new Uint8Array(0)
    const payload = await this.read(length)
    if (payload === undefined) throw new Error(`cut before ${length} bytes`)
    return payload
  }

  async close () {
    await this.#stream.close()
  }

  abort () {
    this.#stream.abort(new Error('cut by the test'))
  }
}
