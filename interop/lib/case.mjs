// One case: what it starts is ended with it.

import { jsNode } from './js.mjs'
import { pyPeer } from './py.mjs'

/** What cases that run one after the other share. */
export class Group {
  /** The node of py-libp2p, which takes seconds to start. */
  #py

  async py (stack) {
    this.#py ??= pyPeer(stack)
    return this.#py
  }

  /** Ends it: after the last case, and after one that failed, whose traces it bears. */
  async end () {
    const py = this.#py
    this.#py = undefined
    await (await py)?.stop()
  }
}

export class Case {
  #cleanup = []
  #group

  constructor (group) {
    this.#group = group
  }

  defer (end) {
    this.#cleanup.push(end)
  }

  /** A node of js-libp2p for this case. */
  async js (stack, options) {
    const node = await jsNode(stack, options)
    this.defer(() => node.stop())
    return node
  }

  /** A node of py-libp2p, which other cases of the group use as well. */
  async py (stack) {
    return this.#group.py(stack)
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
