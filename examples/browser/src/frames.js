// Frames with a length as an unsigned varint, and the values inside of them.

/** All `parts` in one array. */
export function bytes (...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  const whole = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** `value` as an unsigned varint. Values above 2^31 are not those of bit operators. */
export function number (value) {
  const out = []
  for (; value >= 0x80; value = Math.floor(value / 0x80)) out.push((value % 0x80) | 0x80)
  return Uint8Array.from([...out, value])
}

/** Reads the fields of one message. */
export function reader (message) {
  let at = 0
  const byte = () => {
    if (at === message.length) throw new Error('a message is cut')
    return message[at++]
  }
  return {
    byte,
    number () {
      let value = 0
      for (let scale = 1; scale <= 2 ** 49; scale *= 0x80) {
        const next = byte()
        value += (next & 0x7f) * scale
        if (next < 0x80) return value
      }
      throw new Error('a number is too large')
    },
    rest () {
      const rest = message.subarray(at)
      at = message.length
      return rest
    }
  }
}

/** The frames of a stream of libp2p. */
export class Frames {
  #stream
  #parts
  #limit
  #rest = new Uint8Array(0)

  constructor (stream, limit) {
    this.#stream = stream
    this.#parts = stream[Symbol.asyncIterator]()
    this.#limit = limit
  }

  async send (message) {
    if (!this.#stream.send(bytes(number(message.length), message))) await this.#stream.onDrain()
  }

  /** The next message, or `undefined` at the end of the stream. */
  async next () {
    const length = await this.#length()
    if (length === undefined) return undefined
    if (length > this.#limit) throw new Error(`a frame of ${length} bytes`)
    const message = new Uint8Array(length)
    for (let have = 0; have < length;) {
      if (!await this.#more()) throw new Error('the stream ended inside of a frame')
      const part = this.#rest.subarray(0, length - have)
      message.set(part, have)
      have += part.length
      this.#rest = this.#rest.subarray(part.length)
    }
    return message
  }

  async #length () {
    let value = 0
    for (let scale = 1; scale <= 2 ** 21; scale *= 0x80) {
      if (!await this.#more()) {
        if (scale === 1) return undefined
        throw new Error('the stream ended inside of a frame')
      }
      const next = this.#rest[0]
      this.#rest = this.#rest.subarray(1)
      value += (next & 0x7f) * scale
      if (next < 0x80) return value
    }
    throw new Error('the length of a frame is too large')
  }

  /** Awaits bytes. Returns `false` at the end of the stream. */
  async #more () {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#parts.next()
      if (done) return false
      this.#rest = value.subarray()
    }
    return true
  }
}
