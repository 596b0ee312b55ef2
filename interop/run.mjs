// Runs every case against real `calnet` processes, prints what came of it, and compares
// docs/interop.md with it.
//
//   node run.mjs [--write] [WORD..]
//
// With words, only the cases whose description holds all of them run, and the page is left alone.
// `--write` writes the page instead of comparing it. A case that goes wrong is run once more, alone,
// after all others, and its first end is told beside the second. The exit status is 1 if it fails
// again that should pass, if one passes that is noted as failing, or if the page is not what it
// should be.

import './lib/polyfill.mjs'

import { readFileSync, writeFileSync } from 'node:fs'

import { Case, Group } from './lib/case.mjs'
import { key, page } from './lib/table.mjs'
import { withDeadline } from './lib/wait.mjs'

/** Seconds for one case: each waits for its own events, with shorter deadlines. */
const CASE_SECONDS = 60
/** Groups of cases that run at one time: most of a case is waiting for heartbeats and processes. */
const LANES = 3
const PAGE = new URL('../docs/interop.md', import.meta.url)
const HEAD = new URL('./head.md', import.meta.url)

const FEATURES = [
  './versions/published.mjs',
  './versions/older.mjs',
  './js/connect.mjs',
  './js/streams.mjs',
  './js/gossip.mjs',
  './js/relay.mjs',
  './js/dcutr.mjs',
  './js/kad.mjs',
  './js/autonat.mjs',
  './js/blob.mjs',
  './py/connect.mjs',
  './py/streams.mjs',
  './py/gossip.mjs'
]

/** Every case, with the group it belongs to: those of one file and one stack, which run in order. */
async function all () {
  const cases = []
  for (const feature of FEATURES) {
    const module = await import(feature)
    for (const test of module.cases) cases.push({ test, group: `${feature} ${Object.values(test.stack)}` })
  }
  return cases
}

async function run (test, group) {
  const skipped = await test.skip?.()
  if (skipped) return { test, status: 'skipped', text: skipped }
  const t = new Case(group)
  try {
    await withDeadline(test.run(t), CASE_SECONDS, 'the case')
    return { test, status: 'passed' }
  } catch (error) {
    await group.end()
    return { test, status: 'failed', text: error.stack }
  } finally {
    await t.end()
  }
}

/** What is wrong with a result, if anything is. */
function wrong ({ test, status, text }) {
  // One that is noted as failing does so in the way that is noted, not by whatever else is broken.
  if (status === 'failed' && (test.fails === undefined || !text.includes(test.failure))) return text
  if (status === 'passed' && test.fails !== undefined) return `passes, and is noted as failing: ${test.fails}`
}

function tell (result, seconds) {
  const { test, status, text } = result
  const fault = wrong(result)
  const mark = status === 'failed' && fault === undefined ? 'fails as noted' : status
  console.log(`${mark.padEnd(14)} ${seconds.toFixed(1).padStart(5)} s  ${key(test)}`)
  const reason = fault ?? (status === 'skipped' ? text : undefined)
  if (reason !== undefined) console.log(`    ${reason.replaceAll('\n', '\n    ')}`)
}

/** Runs the cases of one group one after the other. Their results go where they belong. */
async function runGroup (cases) {
  const group = new Group()
  for (const one of cases) {
    const start = Date.now()
    one.result = await run(one.test, group)
    tell(one.result, (Date.now() - start) / 1000)
  }
  await group.end()
}

const words = process.argv.slice(2).filter(word => word !== '--write')
const chosen = (await all()).filter(({ test }) => words.every(word => key(test).includes(word)))
const started = Date.now()
const waiting = [...new Set(chosen.map(one => one.group))].map(name => chosen.filter(one => one.group === name))
// The longest first, so that no lane ends long after the others.
waiting.sort((a, b) => b.length - a.length)
await Promise.all(Array.from({ length: LANES }, async () => {
  for (let cases; (cases = waiting.shift()) !== undefined;) await runGroup(cases)
}))
// Deadlines inside the other implementations run out where three lanes share a busy machine with
// others. What is broken is so twice.
const again = chosen.filter(one => wrong(one.result))
for (const one of again) {
  console.log(`once more: ${key(one.test)}`)
  await runGroup([one])
}
const results = chosen.map(one => one.result)

let failures = results.filter(wrong).length
if (words.length === 0) {
  const now = page(readFileSync(HEAD, 'utf8'), results, PAGE)
  if (process.argv.includes('--write')) {
    writeFileSync(PAGE, now)
  } else if (readFileSync(PAGE, 'utf8') !== now) {
    console.log('docs/interop.md does not say what came of this run: node run.mjs --write')
    failures++
  }
}
const count = status => results.filter(result => result.status === status).length
console.log(`${count('passed')} passed, ${count('skipped')} skipped, ${failures} wrong, ${again.length} run twice, ` +
  `${((Date.now() - started) / 1000).toFixed(0)} s`)
process.exit(failures === 0 ? 0 : 1)
