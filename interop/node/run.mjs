// Real nodes on this network layer, on the published one, and mixed.
//
//   node run.mjs [--out FILE] [--writes N] [LAYERS..]
//
// LAYERS is a pair such as `ours/published`: the layer of node 1, which creates the context, and of
// node 2, which joins. Without one, all four pairs run, one after the other. Prints a table of rows
// and pairs; a cell is a time or the first line of the error. The exit status is 1 if a cell of a
// pair of `ours` is an error.

import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

import { RealNode, bootNode } from './lib/node.mjs'
import { alternating, blob, concurrent, create, join, large, median, reads } from './lib/steps.mjs'
import { withDeadline } from '../lib/wait.mjs'

const PAIRS = ['ours/ours', 'published/published', 'ours/published', 'published/ours']
/** Seconds for one row. */
const ROW_SECONDS = 240
/** Seconds in which concurrent writes have to end. The node alone takes less than a minute. */
const CONCURRENT_SECONDS = 120

const s = value => `${value.toFixed(2)} s`
const ms = value => `${value.toFixed(0)} ms`

/** Runs the rows of one pair of layers. */
class Pair {
  cells = new Map()
  nodes = []
  boots = []

  constructor (name, folder, writes) {
    this.name = name
    this.layers = name.split('/')
    this.folder = folder
    this.writes = writes
  }

  async node (layer) {
    const home = path.join(this.folder, `${this.name.replace('/', '-')}-${this.nodes.length + 1}`)
    // Without published nodes, messages may be larger than these take.
    const isOurs = this.layers.every(one => one === 'ours')
    const env = isOurs ? { CALIMERO_NETWORK_PRESET: 'small' } : {}
    const node = await RealNode.create(layer, home, env)
    this.nodes.push(node)
    return node
  }

  async row (name, action) {
    let cell
    try {
      cell = await withDeadline(action(), ROW_SECONDS, name)
    } catch (error) {
      cell = `**fails**: ${String(error.message).split('\n')[0].replaceAll('|', '/').slice(0, 240)}`
    }
    this.cells.set(name, cell)
    console.log(`${this.name.padEnd(20)} ${name.padEnd(44)} ${cell}`)
  }

  async run () {
    for (const part of ['two', 'lostBoot', 'allWrite', 'behindBoot']) {
      await this[part]()
      await this.end()
    }
  }

  /** Two nodes of which the second knows the first. */
  async two () {
    const [first, second] = [await this.node(this.layers[0]), await this.node(this.layers[1])]
    await first.start()
    await second.start([first.address])
    await this.row('create the context', async () => {
      const start = performance.now()
      this.made = await create(first)
      return s((performance.now() - start) / 1000)
    })
    const { context } = this.made ?? {}
    await this.row('invite and join', async () => s(await join(first, second, this.made)))
    await this.row('first read on node 2', async () => s(await reads(second, context, 'get', 'first', 'one')))
    await this.row('20 alternating writes, median / worst', async () => {
      const times = await alternating(first, second, context)
      return `${ms(median(times))} / ${ms(Math.max(...times))}`
    })
    for (const kib of [100, 400]) {
      await this.row(`${kib} KiB from node 1`, async () => s(await large(first, second, context, kib)))
      await this.row(`${kib} KiB from node 2`, async () => s(await large(second, first, context, kib)))
    }
    await this.row('3 MiB blob of node 1 by the DHT', async () => s(await blob(first, second, context)))
    await this.row('3 MiB blob of node 2 by the DHT', async () => s(await blob(second, first, context)))
    await this.row('restart of node 2 without a boot node', async () => {
      await second.stop()
      const start = performance.now()
      await second.start()
      await first.call(context, 'set', { key: 'restart', value: 'seen' })
      await reads(second, context, 'get', 'restart', 'seen')
      return s((performance.now() - start) / 1000)
    })
  }

  /** Three nodes in one context, of which two know the first. */
  async three () {
    const layers = [this.layers[0], this.layers[1], this.layers[1]]
    const all = []
    for (const layer of layers) all.push(await this.node(layer))
    const [first, ...others] = all
    await first.start()
    for (const node of others) await node.start([first.address])
    const made = await create(first)
    for (const node of others) {
      await join(first, node, made)
      await reads(node, made.context, 'get', 'first', 'one')
    }
    return { all, context: made.context }
  }

  async lostBoot () {
    await this.row('node 1 lost: node 3 reads a write of node 2', async () => {
      const { all: [first, second, third], context } = await this.three()
      await first.stop()
      await second.call(context, 'set', { key: 'lost', value: 'seen' })
      return s(await reads(third, context, 'get', 'lost', 'seen'))
    })
  }

  async allWrite () {
    await this.row(`${this.writes} concurrent writes of three nodes`, async () => {
      const { all, context } = await this.three()
      return s(await concurrent(all, context, this.writes, CONCURRENT_SECONDS))
    })
  }

  /** Two nodes that know only `calnet boot`. */
  async behindBoot () {
    await this.row('both know only `calnet boot`: join', async () => {
      const boot = await bootNode(path.join(this.folder, `${this.name.replace('/', '-')}-boot`))
      this.boots.push(boot)
      const [first, second] = [await this.node(this.layers[0]), await this.node(this.layers[1])]
      await first.start([boot.address])
      await second.start([boot.address])
      const made = await create(first)
      const joined = await join(first, second, made)
      await reads(second, made.context, 'get', 'first', 'one')
      this.behind = { first, second, context: made.context }
      return s(joined)
    })
    const { first, second, context } = this.behind ?? {}
    await this.row('then: 3 MiB blob of node 1', async () => s(await blob(first, second, context)))
    await this.row('then: 3 MiB blob of node 2', async () => s(await blob(second, first, context)))
  }

  async end () {
    for (const one of [...this.nodes, ...this.boots]) await one.stop()
    this.boots = []
  }
}

function table (pairs) {
  const rows = pairs[0].cells.keys()
  const lines = [`| node 1 / node 2 | ${pairs.map(pair => pair.name).join(' | ')} |`]
  lines.push(`|---|${'---|'.repeat(pairs.length)}`)
  for (const row of rows) {
    lines.push(`| ${row} | ${pairs.map(pair => pair.cells.get(row) ?? 'not run').join(' | ')} |`)
  }
  return lines.join('\n') + '\n'
}

function options (args) {
  const chosen = { pairs: [], writes: 300 }
  while (args.length > 0) {
    const one = args.shift()
    if (one === '--out') chosen.out = args.shift()
    else if (one === '--writes') chosen.writes = Number(args.shift())
    else if (PAIRS.includes(one)) chosen.pairs.push(one)
    else throw new Error(`${one} is none of ${PAIRS.join(' ')}`)
  }
  if (chosen.pairs.length === 0) chosen.pairs = PAIRS
  return chosen
}

const { pairs, out, writes } = options(process.argv.slice(2))
const folder = await mkdtemp(path.join(tmpdir(), 'real-node-'))
const done = []
for (const name of pairs) {
  const pair = new Pair(name, folder, writes)
  try {
    await pair.run()
  } catch (error) {
    await pair.row('the whole run', () => { throw error })
  } finally {
    await pair.end()
  }
  done.push(pair)
}
const text = table(done)
if (out !== undefined) await writeFile(out, text)
console.log(text)
const failed = done.some(pair => pair.name === 'ours/ours' && [...pair.cells.values()].some(cell => cell.startsWith('**')))
if (failed || process.env.KEEP_LOGS) console.log(`logs: ${folder}`)
else await rm(folder, { recursive: true })
process.exit(failed ? 1 : 0)
