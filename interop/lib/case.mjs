// One case: what it starts is ended with it.

import { jsNode } from './js.mjs'

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
