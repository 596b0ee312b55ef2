// A live network of three nodes: a boot node, alice and bob, each with its API and data folder.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const LIMIT_MS = 30_000;

/** What a hostile peer sends where text is expected. */
export const MARKUP = '<img src=x onerror="window.injected=1"><b id=injected>agent</b>';
export const MARKUP_TOPIC = "<script>window.injected=1</script><i id=injected>topic</i>";
export const TOPIC = "weather";

/** A boot node that does not answer, so that its failure is shown. */
const ABSENT = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";

/** Waits until `check` returns something, and returns it. */
export async function until(what, check) {
  const deadline = Date.now() + LIMIT_MS;
  for (;;) {
    const found = await check();
    if (found) {
      return found;
    }
    if (Date.now() > deadline) {
      throw new Error(`not within ${LIMIT_MS} ms: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

class Node {
  constructor(calnet, folder, name, args) {
    this.data = join(folder, name);
    this.records = [];
    this.log = "";
    const all = [...args, "--json", "--local", "--data", this.data, "--api", "127.0.0.1:0"];
    this.process = spawn(calnet, all, { stdio: ["ignore", "pipe", "pipe"] });
    this.ended = new Promise((resolve) => this.process.on("exit", resolve));
    createInterface({ input: this.process.stdout }).on("line", (line) => this.records.push(JSON.parse(line)));
    this.process.stderr.on("data", (data) => { this.log += data; });
  }

  event(name, is = () => true) {
    return until(`${name} in ${this.log}`, () => this.records.find((one) => one.event === name && is(one)));
  }

  async ready() {
    this.peer = (await this.event("started")).peer;
    this.url = (await this.event("api")).url.replace(/\/v1$/, "");
    this.token = readFileSync(join(this.data, "control", "token"), "utf8").trim();
    return this;
  }

  /** Its TCP address with its peer id. */
  async address() {
    const { address } = await this.event("listening", (one) => one.address.includes("/tcp/"));
    return `${address}/p2p/${this.peer}`;
  }

  /** Publishes a message, and resolves once it is sent. */
  async publish(topic, text) {
    const url = `${this.url}/v1/topics/messages?${new URLSearchParams({ topic })}`;
    const headers = { Authorization: `Bearer ${this.token}` };
    const response = await fetch(url, { method: "POST", headers, body: text });
    if (!response.ok) {
      throw new Error(`status ${response.status}: ${await response.text()}`);
    }
  }

  async end() {
    this.process.kill("SIGTERM");
    await this.ended;
  }
}

/** Starts the network. `stop` ends its processes and removes its folder. */
export async function start(calnet) {
  const folder = mkdtempSync(join(tmpdir(), "calnet-page-"));
  const started = [];
  const node = (name, args) => {
    const one = new Node(calnet, folder, name, args);
    started.push(one);
    return one.ready();
  };
  const stop = async () => {
    await Promise.all(started.map((one) => one.end()));
    rmSync(folder, { recursive: true });
  };
  const open = ["--listen", "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
  try {
    const boot = await node("boot", ["boot", ...open]);
    const config = join(folder, "bob.toml");
    writeFileSync(config, `agent_version = '${MARKUP}'\n`);
    const known = ["--boot", await boot.address()];
    const topics = ["--subscribe", TOPIC, MARKUP_TOPIC];
    const bob = await node("bob", ["run", ...known, ...topics, ...open, "--config", config]);
    const dial = ["--dial", await bob.address()];
    const alice = await node("alice", ["run", ...known, ABSENT, ...topics, ...open, ...dial]);
    const nowhere = join(folder, "nowhere.toml");
    writeFileSync(nowhere, "listen = []\n");
    /** Starts a node that listens nowhere, so that others reach it through its relay alone. */
    const hidden = (name) => node(name, ["run", ...known, "--config", nowhere]);
    return { boot, alice, bob, hidden, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
