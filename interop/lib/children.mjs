// Processes that print a JSON object a line: calnet, the scripted peer, the Python peer.

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import path from 'node:path'

import { withDeadline } from './wait.mjs'

const ROOT = path.resolve(fileURLToPath(import.meta.url), '../../..')
const BUILDS = path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target')
const PROFILE = process.env.INTEROP_PROFILE ?? 'debug'
const TARGET = path.join(BUILDS, PROFILE)

export const CALNET = path.join(TARGET, 'calnet')
export const PEER = path.join(TARGET, 'examples', 'interop_peer')
/** A node of the published implementation, which is a workspace of its own. */
export const PUBLISHED = path.join(BUILDS, 'published', PROFILE, 'published-peer')

export const LOOPBACK = {
  tcp: '/ip4/127.0.0.1/tcp/0',
  quic: '/ip4/127.0.0.1/udp/0/quic-v1'
}

/** Seconds for a line that is waited for: generous, so that a loaded machine is no failure. */
const LINE_SECONDS = 30
/** What is kept of standard error for a failed case, in characters. */
const STDERR_KEPT = 4000

export class Child {
  #process
  #lines = []
  #waiting = new Set()
  #ended
  stderr = ''

  constructor (command, args, options = {}) {
    if (path.isAbsolute(command) && !existsSync(command)) {
      throw new Error(`${command} is not built`)
    }
    this.name = path.basename(command)
    this.#process = spawn(command, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'] })
    this.#process.stdin.on('error', () => {})
    this.#process.stderr.on('data', chunk => {
      this.stderr = (this.stderr + chunk).slice(-STDERR_KEPT)
    })
    createInterface({ input: this.#process.stdout }).on('line', line => this.#take(line))
    this.#ended = new Promise(resolve => {
      this.#process.on('error', error => resolve({ error }))
      this.#process.on('close', (code, signal) => resolve({ code, signal }))
    })
    this.#ended.then(() => this.#take('{"event":"process_ended"}'))
  }

  #take (line) {
    let value
    try {
      value = JSON.parse(line)
    } catch {
      value = { event: 'text', line }
    }
    this.#lines.push(value)
    for (const look of [...this.#waiting]) look()
  }

  /** The first line, past or future, that `matches`; it is then used up. */
  async line (what, matches, seconds = LINE_SECONDS) {
    const found = new Promise((resolve, reject) => {
      const look = () => {
        const at = this.#lines.findIndex(matches)
        if (at >= 0) {
          this.#waiting.delete(look)
          resolve(this.#lines.splice(at, 1)[0])
        } else if (this.#lines.some(line => line.event === 'process_ended')) {
          this.#waiting.delete(look)
          reject(new Error(`${this.name} ended without ${what}: ${this.stderr.trim()}`))
        }
      }
      this.#waiting.add(look)
      look()
    })
    return withDeadline(found, seconds, `${what} of ${this.name}`)
  }

  event (name, matches = () => true, seconds) {
    return this.line(`event ${name}`, line => line.event === name && matches(line), seconds)
  }

  /** Whether a line that `matches` was printed and not used up. */
  saw (matches) {
    return this.#lines.some(matches)
  }

  write (value) {
    this.writeLine(JSON.stringify(value))
  }

  /** One line of standard input. */
  writeLine (bytes) {
    this.#process.stdin.write(Buffer.concat([Buffer.from(bytes), Buffer.from('\n')]))
  }

  /** Ends the process: as ctrl-c does, and after five seconds for good. */
  async stop () {
    this.#process.kill('SIGINT')
    this.#process.stdin.end()
    const kill = setTimeout(() => this.#process.kill('SIGKILL'), 5000)
    const end = await this.#ended
    clearTimeout(kill)
    return end
  }

  async ended (seconds = LINE_SECONDS) {
    return withDeadline(this.#ended, seconds, `the end of ${this.name}`)
  }
}

/** `calnet run`, or another command that is a node, listening on `listen`. */
export async function calnetRun ({ command = 'run', listen = Object.values(LOOPBACK), dial = [], config, args = [], wrap = [] } = {}) {
  const all = [...wrap, CALNET, command, '--json', ...args]
  for (const address of listen) all.push('--listen', address)
  for (const address of dial) all.push('--dial', address)
  if (config !== undefined) all.push('--config', config)
  const child = new Child(all[0], all.slice(1))
  child.peer = (await child.event('started')).peer
  child.addresses = []
  for (let left = listen.length; left > 0; left--) {
    child.addresses.push(complete((await child.event('listening')).address, child.peer))
  }
  return child
}

/** `calnet run` that prints the messages of a topic and publishes what is written to it, a line each. */
export async function calnetOn (topic, options = {}) {
  const { args = [], ...rest } = options
  const child = await calnetRun({ ...rest, args: [...args, '--local', '--subscribe', topic, '--publish', topic] })
  child.knows = peer => child.event('subscribed', line => line.peer === peer && line.topic === topic)
  /** The next message: who published it, and its bytes, printed as text or in hex. */
  child.message = async (matches = () => true, seconds) => {
    const read = ({ peer, text, hex }) => ({ source: peer, data: Buffer.from(text ?? hex, text === undefined ? 'hex' : 'utf8') })
    return read(await child.event('message', line => matches(read(line)), seconds))
  }
  return child
}

/** `size` bytes that are one line of text. */
export function line (size) {
  return Buffer.alloc(size, 'The quick brown fox jumps over the lazy dog. ')
}

/** A command of calnet that ends by itself and prints one JSON line. */
export async function calnetOnce (...args) {
  const child = new Child(CALNET, [...args, '--json'])
  const line = await child.line('an answer', line => line.event !== 'process_ended' && line.event !== 'progress')
  await child.ended()
  return line
}

/** Any peer of ours or another that answers numbered commands on standard input. */
export class Scripted extends Child {
  #next = 1

  async ask (command, fields = {}, seconds = 60) {
    const id = this.#next++
    this.write({ id, do: command, ...fields })
    const answer = await this.line(`an answer to ${command}`, line => line.id === id, seconds)
    if (answer.error !== undefined) throw new Error(`${this.name}: ${command}: ${answer.error}`)
    return answer.ok
  }
}

/** Our scripted peer, which echoes frames. */
export async function ourPeer ({ listen = Object.values(LOOPBACK), config, local = true, wrap = [] } = {}) {
  // Loopback addresses are told and dialled on no other network than a local one.
  const all = [...wrap, PEER]
  // First, for it replaces everything; the others change what it says.
  if (config !== undefined) all.push('--config', config)
  all.push('--local', String(local))
  for (const address of listen) all.push('--listen', address)
  const child = new Scripted(all[0], all.slice(1))
  const started = await child.event('started')
  child.peer = started.peer
  child.addresses = started.listening.map(address => complete(address, child.peer))
  return child
}

/** A node of the published implementation. */
export async function publishedPeer () {
  const listen = Object.values(LOOPBACK)
  const child = new Scripted(PUBLISHED, listen)
  child.name = 'the published node'
  child.peer = (await child.event('started')).peer
  child.addresses = []
  for (let left = listen.length; left > 0; left--) {
    child.addresses.push(complete((await child.event('listening')).address, child.peer))
  }
  return child
}

/** The address of `transport` among those of a process. */
export function address (of, transport) {
  const part = { tcp: '/tcp/', quic: '/quic-v1' }[transport]
  const found = of.addresses.find(address => address.includes(part))
  if (found === undefined) throw new Error(`no ${transport} address in ${of.addresses}`)
  return found
}

function complete (address, peer) {
  return address.includes(`/p2p/${peer}`) ? address : `${address}/p2p/${peer}`
}
