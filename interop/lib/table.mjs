// Writes the results as docs/interop.md: a table for each implementation, and the failing cases.

import { readFileSync } from 'node:fs'

const COLUMNS = ['transport', 'security', 'muxer', 'feature', 'direction', 'passed']

/** The cells before `passed`, which identify a case. */
export function key ({ implementation, stack, feature, direction }) {
  return [implementation, stack.transport, stack.security, stack.muxer, feature, direction].join(' | ')
}

function row (test, passed) {
  const { stack, feature, direction } = test
  const cells = [stack.transport, stack.security, stack.muxer, feature, direction, passed]
  return `| ${cells.join(' | ')} |`
}

/** The row of a case that was skipped: the row of the previous page. */
function kept (before, implementation, test) {
  const start = row(test, '').slice(0, -3)
  const section = before.split('\n## ').find(text => text.startsWith(implementation)) ?? ''
  return section.split('\n').find(line => line.startsWith(start)) ?? row(test, 'not run')
}

/** A list item in lines of at most 100 characters. */
export function wrapped (mark, text) {
  const lines = []
  let line = mark
  for (const word of text.split(' ')) {
    if (line.trim() !== '' && line !== mark && line.length + 1 + word.length > 100) {
      lines.push(line)
      line = ' '.repeat(mark.length)
    }
    line += line.endsWith(' ') ? word : ` ${word}`
  }
  return [...lines, line].join('\n')
}

export function page (head, results, file) {
  let before = ''
  try {
    before = readFileSync(file, 'utf8')
  } catch {
    // There is no previous page.
  }
  const notes = []
  const note = reason => {
    if (!notes.includes(reason)) notes.push(reason)
    return notes.indexOf(reason) + 1
  }
  const parts = [head]
  for (const implementation of new Set(results.map(result => result.test.implementation))) {
    parts.push(`## ${implementation}\n`)
    parts.push(`| ${COLUMNS.join(' | ')} |\n|${' --- |'.repeat(COLUMNS.length)}`)
    for (const { test, status } of results.filter(r => r.test.implementation === implementation)) {
      if (test.fails !== undefined) parts.push(row(test, `no [${note(test.fails)}]`))
      else if (status === 'skipped') parts.push(kept(before, implementation, test))
      else parts.push(row(test, status === 'passed' ? 'yes' : 'NO'))
    }
    parts.push('')
  }
  if (notes.length > 0) {
    parts.push('## Failing cases\n')
    notes.forEach((reason, at) => parts.push(wrapped(`${at + 1}. `, reason)))
    parts.push('')
  }
  return parts.join('\n')
}
