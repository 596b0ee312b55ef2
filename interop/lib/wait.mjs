// Waiting, never without a deadline, and comparing.

/** `promise`, or an error that says what did not happen. */
export async function withDeadline (promise, seconds, what) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${seconds} s`)), seconds * 1000)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Asks `probe` again and again until it gives something. */
export async function until (what, probe, seconds = 30) {
  const end = Date.now() + seconds * 1000
  let last
  for (;;) {
    try {
      const value = await probe()
      if (value !== undefined && value !== null && value !== false) return value
    } catch (error) {
      last = error
    }
    if (Date.now() > end) {
      throw new Error(`${what}: not within ${seconds} s${last ? ` (${last.message})` : ''}`)
    }
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** A handler for one event of an event target: `take` gives each event once. */
export function events (target, name) {
  const seen = []
  const waiting = []
  target.addEventListener(name, event => {
    const next = waiting.shift()
    if (next === undefined) seen.push(event.detail)
    else next(event.detail)
  })
  return (seconds = 30) => {
    if (seen.length > 0) return Promise.resolve(seen.shift())
    return withDeadline(new Promise(resolve => waiting.push(resolve)), seconds, `event ${name}`)
  }
}

export function check (holds, otherwise) {
  if (!holds) throw new Error(otherwise)
}

export function equal (found, expected, what) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(expected)]
  check(a === b, `${what}: ${a} instead of ${b}`)
}

/** What calnet says of a connection has to be what the stack says. */
export function checkStack (connection, stack) {
  equal(connection.transport, stack.transport, 'transport')
  check(connection.security.toLowerCase().startsWith(stack.security), `security: ${connection.security}`)
  equal(connection.muxer, stack.muxer, 'muxer')
}
