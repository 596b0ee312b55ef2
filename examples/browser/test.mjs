// The page in headless Chromium against a real `calnet` node on loopback: connects over WebSocket,
// exchanges messages of a topic in both directions and fetches a blob. `.ci/browser` runs it.

import { createServer } from 'node:http'
import { execFile, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import { promisify } from 'node:util'
import os from 'node:os'
import path from 'node:path'

import { chromium } from 'playwright-core'

const CALNET = process.env.CALNET
const CHROMIUM = process.env.CHROMIUM
const DIST = path.join(import.meta.dirname, 'dist')
const TOPIC = '29d2S7vB453rNYFdR5Ycwt7y9haRT5fwVwL9zTmBhfV2'
/** Inline, and in chunks of which the last one is shorter. */
const SIZES = [1000, 3 * 1024 * 1024 + 5]
/** Time for one step, in milliseconds. */
const STEP = 30_000
const TYPES = { '.html': 'text/html', '.js': 'text/javascript' }

const cleanup = []
/** Errors of the page. They are printed if the test fails. */
const pageErrors = []

/** The next event of `calnet` that `matches`. */
function events (child) {
  const seen = []
  const waiting = new Set()
  createInterface({ input: child.stdout }).on('line', line => {
    seen.push(JSON.parse(line))
    for (const look of [...waiting]) look()
  })
  return (name, matches = () => true) => new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`calnet: no event ${name}: ${JSON.stringify(seen)}`)), STEP)
    const look = () => {
      const at = seen.findIndex(event => event.event === name && matches(event))
      if (at < 0) return
      clearTimeout(timer)
      waiting.delete(look)
      resolve(seen.splice(at, 1)[0])
    }
    waiting.add(look)
    look()
  })
}

/** Starts a node with the blobs of `contents` and returns how it is reached. */
async function startNode (folder, contents) {
  const data = path.join(folder, 'data')
  const ids = []
  for (const [at, content] of contents.entries()) {
    const file = path.join(folder, `content-${at}`)
    await writeFile(file, content)
    const { stdout } = await promisify(execFile)(CALNET, ['blob', 'add', file, '--data', data, '--json'])
    ids.push(JSON.parse(stdout.trim().split('\n').at(-1)).id)
  }
  const child = spawn(CALNET, [
    'run', '--json', '--local', '--data', data, '--listen', '/ip4/127.0.0.1/tcp/0/ws',
    '--subscribe', TOPIC, '--publish', TOPIC
  ], { stdio: ['pipe', 'pipe', 'inherit'] })
  cleanup.push(async () => {
    child.kill('SIGINT')
    if (child.exitCode === null) await once(child, 'exit')
  })
  const event = events(child)
  const { peer } = await event('started')
  const { address } = await event('listening')
  return { event, peer, address: address.includes('/p2p/') ? address : `${address}/p2p/${peer}`, ids, write: text => child.stdin.write(`${text}\n`) }
}

async function serve (folder) {
  const server = createServer(async (request, response) => {
    const name = request.url === '/' ? '/index.html' : new URL(request.url, 'http://a').pathname
    const type = TYPES[path.extname(name)]
    try {
      if (type === undefined) throw new Error('no such file')
      const content = await readFile(path.join(folder, path.basename(name)))
      response.writeHead(200, { 'content-type': type }).end(content)
    } catch {
      response.writeHead(404).end()
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanup.push(async () => server.close())
  return `http://127.0.0.1:${server.address().port}/`
}

async function openPage (url) {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // Chromium refuses to run as root inside of its sandbox.
    chromiumSandbox: process.getuid() !== 0,
    args: ['--disable-dev-shm-usage', '--disable-gpu']
  })
  cleanup.push(() => browser.close())
  const page = await browser.newPage()
  page.setDefaultTimeout(STEP)
  page.on('pageerror', error => pageErrors.push(error.message))
  page.on('console', message => message.type() === 'error' && pageErrors.push(message.text()))
  await page.goto(url)
  return page
}

/** Fills the form `name` and submits it. */
async function submit (page, name, values) {
  for (const [field, value] of Object.entries(values)) await page.fill(`#${field}`, value)
  await page.click(`#${name} button`)
}

/** Awaits a record of the page. An error of the page ends the wait. */
async function record (page, event, text = '') {
  const found = await page.waitForFunction(({ event, text }) => {
    const all = [...document.querySelectorAll('#log li')]
    const error = all.find(line => line.dataset.event === 'error')
    const line = all.find(line => line.dataset.event === event && line.textContent.includes(text))
    return (line ?? error)?.textContent
  }, { event, text })
  const shown = await found.jsonValue()
  if (!shown.includes(text)) throw new Error(`instead of ${event}: ${shown}`)
  return shown
}

async function run () {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'calnet-browser-'))
  cleanup.push(() => rm(folder, { recursive: true, force: true }))
  const contents = SIZES.map(size => Uint8Array.from({ length: size }, (_, at) => at % 251))
  const node = await startNode(folder, contents)
  const page = await openPage(await serve(DIST))
  await record(page, 'started')

  await submit(page, 'connect', { address: node.address })
  await record(page, 'connected', node.peer)
  const { transport } = await node.event('connected')
  if (transport !== 'websocket') throw new Error(`connected over ${transport}`)
  console.log('connected over WebSocket')

  await submit(page, 'subscribe', { topic: TOPIC })
  await record(page, 'subscribed', node.peer)
  const { peer } = await node.event('subscribed', event => event.topic === TOPIC)
  await submit(page, 'publish', { message: 'from the page' })
  const received = await node.event('message')
  if (received.text !== 'from the page' || received.peer !== peer) throw new Error(JSON.stringify(received))
  node.write('from the node')
  await record(page, 'message', `${node.peer}: from the node`)
  console.log('messages in both directions')

  for (const [at, content] of contents.entries()) {
    await submit(page, 'fetch', { blob: node.ids[at] })
    await record(page, 'fetched', `${content.length} bytes`)
    const matches = await page.evaluate(async () => {
      const saved = await fetch(document.getElementById('download').href)
      const bytes = new Uint8Array(await saved.arrayBuffer())
      return bytes.every((byte, at) => byte === at % 251) && bytes.length
    })
    if (matches !== content.length) throw new Error('other bytes were saved')
    console.log(`blob of ${content.length} bytes`)
  }
  // A blob that the node does not have is an error that the page shows.
  await submit(page, 'fetch', { blob: '4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi' })
  await record(page, 'error', 'not found')
  console.log('a missing blob is refused')
}

let failed = false
try {
  await run()
} catch (error) {
  failed = true
  console.error(error)
  for (const text of pageErrors) console.error('page:', text)
}
for (const end of cleanup.reverse()) await end().catch(error => console.error(error))
process.exit(failed ? 1 : 0)
