// One case: what it starts is ended with it.

import { jsNode } from './js.mjs'
import { pyPeer } from './py.mjs'

/** Nodes of py-libp2p by stack: they take seconds to start, so cases share them. */
const shared = new Map()

/** Ends the shared nodes: after the last case, and after one that failed, whose traces they bear. */
export async function endShared () {
  const nodes = [...shared.values()]
  shared.clear()
  for (const node of nodes) await (await node).stop()
}

export class Case {
  #cleanup = []

  defer (end) {
    this.#cleanup.push(end)
  }

  /** A node of js-libp2p for this case. */
  async js (stack, options) {
    const node = await jsNode(stack, options)
    this.defer(() => node.stop())
    return node
  }

  /** A node of py-libp2p, which other cases use as well. */
  async py (stack) {
    const key = `${stack.transport} ${stack.security}`
    if (!shared.has(key)) shared.set(key, pyPeer(stack))
    return shared.get(key)
  }

  /** A process for this case. */
  async own (starting) {
    const child = await starting
    this.defer(() => child.stop())
    return child
  }

  async end () {
    for (const end of this.#cleanup.reverse()) {
      try {
        await end()
      } catch {
        // What does not end well here has no bearing on what was tested.
      }
    }
  }
}
