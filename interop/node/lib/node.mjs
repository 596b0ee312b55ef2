// One real node: a process and its HTTP API.

import { spawn } from 'node:child_process'
import { createWriteStream, existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import path from 'node:path'

import { until, withDeadline } from '../../lib/wait.mjs'

const HERE = path.resolve(fileURLToPath(import.meta.url), '../..')
const BUILDS = path.resolve(HERE, process.env.CARGO_TARGET_DIR ?? 'target')
export const BINARIES = {
  ours: path.join(BUILDS, 'debug', 'real-node'),
  published: path.join(BUILDS, 'debug', 'real-node-published')
}
export const CALNET = process.env.CALNET ?? path.resolve(HERE, '../../target/debug/calnet')
export const APPLICATION = path.join(HERE, 'app', 'key-value.wasm')

/** Seconds for a node to answer after its start. A debug build opens its store in a few. */
const START_SECONDS = 60
/** Seconds for one request: joining waits for the network by design of the node. */
const REQUEST_SECONDS = 90

export async function freePort () {
  const server = createServer()
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}

/** A process whose first line of standard output is the peer id. */
class Process {
  constructor (command, args, log, env = {}) {
    if (!existsSync(command)) throw new Error(`${command} is not built`)
    this.child = spawn(command, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    this.child.stderr.pipe(createWriteStream(log, { flags: 'a' }))
    this.ended = new Promise(resolve => this.child.on('close', resolve))
    this.lines = createInterface({ input: this.child.stdout })
  }

  async firstLine () {
    const line = new Promise((resolve, reject) => {
      this.lines.once('line', resolve)
      this.ended.then(code => reject(new Error(`the process ended with ${code}`)))
    })
    return withDeadline(line, START_SECONDS, 'the start of a process')
  }

  /** The node has no orderly stop. */
  async kill () {
    this.child.kill('SIGKILL')
    await this.ended
  }
}

export class RealNode {
  /** `layer` is `ours` or `published`, `home` a folder, `env` is added to the environment. */
  constructor (layer, home, env, ports) {
    Object.assign(this, { layer, home, env, ports })
  }

  static async create (layer, home, env = {}) {
    return new RealNode(layer, home, env, { http: await freePort(), tcp: await freePort() })
  }

  async start (boot = []) {
    const listen = `/ip4/127.0.0.1/tcp/${this.ports.tcp}`
    const args = [this.home, String(this.ports.http), listen, ...boot]
    const env = { RUST_LOG: process.env.RUST_LOG ?? 'info', ...this.env }
    this.process = new Process(BINARIES[this.layer], args, `${this.home}.log`, env)
    this.peer = await this.process.firstLine()
    this.address = `${listen}/p2p/${this.peer}`
    await until('the API', () => this.get('/admin-api/health'), START_SECONDS)
    return this
  }

  async stop () {
    await this.process?.kill()
    this.process = undefined
  }

  async request (method, where, body, seconds = REQUEST_SECONDS) {
    const raw = body instanceof Uint8Array
    const response = await fetch(`http://127.0.0.1:${this.ports.http}${where}`, {
      method,
      headers: body === undefined || raw ? {} : { 'content-type': 'application/json' },
      body: raw || body === undefined ? body : JSON.stringify(body),
      signal: AbortSignal.timeout(seconds * 1000)
    })
    if (!response.ok) throw new Error(`${method} ${where}: ${response.status} ${await response.text()}`)
    return response
  }

  async get (where, seconds) {
    return (await this.request('GET', where, undefined, seconds)).json()
  }

  async post (where, body, seconds) {
    return (await (await this.request('POST', where, body, seconds)).json()).data
  }

  /** Calls a method of the application. */
  async call (context, method, args = {}, seconds) {
    const body = {
      jsonrpc: '2.0',
      id: 1,
      method: 'execute',
      params: { contextId: context, method, argsJson: args }
    }
    const answer = await (await this.request('POST', '/jsonrpc', body, seconds)).json()
    if (answer.error !== undefined) throw new Error(`${method}: ${JSON.stringify(answer.error)}`)
    return answer.result.output
  }
}

/** `calnet boot` for a local network. */
export async function bootNode (home) {
  const port = await freePort()
  const listen = `/ip4/127.0.0.1/tcp/${port}`
  const args = ['boot', '--json', '--local', '--data', home, '--listen', listen]
  const running = new Process(CALNET, args, `${home}.log`)
  const started = JSON.parse(await running.firstLine())
  return { address: `${listen}/p2p/${started.peer}`, stop: () => running.kill() }
}
