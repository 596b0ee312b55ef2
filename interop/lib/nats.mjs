// A public segment and hosts behind NATs, out of network namespaces, as root on Linux. Addresses
// look public, since js-libp2p leaves others out of hole punching, and exist inside alone.

import { execFileSync } from 'node:child_process'

/** Addresses of the segment: the relay, our router, the router of the other. */
export const PUBLIC = { relay: '45.33.7.1', ours: '81.2.7.4', theirs: '62.1.7.3' }

/** Why there can be no such network here; nothing where there can. */
export function unavailable () {
  if (process.platform !== 'linux' || process.getuid() !== 0) return 'no network namespaces here: not root on Linux'
  const name = `interop-${process.pid}-probe`
  try {
    run('nft', ['--version'])
    run('ip', ['netns', 'add', name])
    run('ip', ['netns', 'del', name])
  } catch (error) {
    return `no network namespaces here: ${error.message.split('\n')[0]}`
  }
}

let last = 0

/** The network of one case; `t` takes it down. */
export class Segment {
  #namespaces = []
  #prefix = `interop-${process.pid}-${++last}`

  /** `open`: who of `ours` and `theirs` stands on the segment itself. */
  constructor (t, { open } = {}) {
    t.defer(() => this.#namespaces.forEach(name => run('ip', ['netns', 'del', name])))
    this.switch = this.#namespace('switch')
    ip(this.switch, 'link add name bridge type bridge', 'link set bridge up')
    this.relay = this.#namespace('relay')
    this.#attach(this.relay, 'to-relay', PUBLIC.relay)
    for (const who of ['ours', 'theirs']) {
      this[who] = this.#namespace(who)
      if (who === open) this.#attach(this[who], `to-${who}`, PUBLIC[who])
      else this.#behind(this[who], who)
    }
  }

  /** What goes before a command that runs at a place: `relay`, `ours`, `theirs`. */
  at (place) {
    return ['ip', 'netns', 'exec', this[place]]
  }

  #namespace (role) {
    const name = `${this.#prefix}-${role}`
    run('ip', ['netns', 'add', name])
    this.#namespaces.push(name)
    ip(name, 'link set lo up')
    return name
  }

  /** A link to the segment, on which everybody is heard. */
  #attach (name, port, address) {
    ip(this.switch, `link add name ${port} type veth peer name ext netns ${name}`,
      `link set ${port} master bridge`, `link set ${port} up`)
    ip(name, `addr add ${address}/32 dev ext`, 'link set ext up', 'route add default dev ext')
  }

  /**
   * Puts a host behind a router that maps ports independently of where packets go, filters by address
   * and port, and drops what it does not expect without a word.
   */
  #behind (host, who) {
    const router = this.#namespace(`${who}-router`)
    this.#attach(router, `to-${who}`, PUBLIC[who])
    ip(router, `link add name lan type veth peer name eth0 netns ${host}`, 'addr add 192.168.1.1/24 dev lan', 'link set lan up')
    ip(host, 'link set eth0 up', 'addr add 192.168.1.2/24 dev eth0', 'route add default via 192.168.1.1')
    run('ip', ['netns', 'exec', router, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward'])
    run('ip', ['netns', 'exec', router, 'nft', '-f', '-'], `
      table ip nat {
        chain input { type filter hook input priority filter; policy drop; iifname lan accept; }
        chain forward { type filter hook forward priority filter; policy drop;
          ct state invalid drop; ct state established,related accept; iifname lan accept; }
        chain outward { type nat hook postrouting priority srcnat; policy accept; oifname ext masquerade; }
      }`)
  }
}

function ip (namespace, ...lines) {
  run('ip', ['-n', namespace, '-batch', '-'], lines.join('\n') + '\n')
}

function run (command, args, input = '') {
  execFileSync(command, args, { input, stdio: ['pipe', 'pipe', 'pipe'] })
}
