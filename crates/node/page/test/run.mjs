// The page of a node in headless Chromium, against a live network of three nodes.
//
//   node run.mjs CALNET CHROMIUM [FOLDER]
//
// With FOLDER, the screenshots of the documentation are written there.

import assert from "node:assert/strict";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { MARKUP, MARKUP_TOPIC, TOPIC, start, until } from "./network.mjs";

const [calnet, browserPath, screenshots] = process.argv.slice(2);
const PHONE = { width: 360, height: 740 };
const DESKTOP = { width: 960, height: 720 };

const browser = await chromium.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu"],
});
const network = await start(calnet).catch(async (error) => {
  await browser.close();
  throw error;
});
const { alice, bob, boot } = network;

/** Faults that a browser reports: console errors, exceptions, requests to other origins. */
const faults = [];

async function open(node, options = {}, hash = `#token=${node.token}`) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  page.faults = [];
  const fault = (text) => {
    page.faults.push(text);
    faults.push(text);
  };
  page.on("console", (message) => message.type() === "error" && fault(`console: ${message.text()}`));
  page.on("pageerror", (error) => fault(`exception: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${node.url}/`) && !request.url().startsWith("blob:")) {
      fault(`request to ${request.url()}`);
    }
  });
  page.setDefaultTimeout(30_000);
  await page.goto(`${node.url}/${hash}`);
  return page;
}

const text = (page, selector) => page.locator(selector).innerText();
const contains = (page, selector, part) =>
  until(`${part} in ${selector}`, async () => (await page.locator(selector).innerText()).includes(part));

async function picture(page, name) {
  if (screenshots) {
    await page.screenshot({ path: join(screenshots, `${name}.png`), animations: "disabled" });
  }
}

const tests = {
  async "what the node says of itself is there"(page) {
    await contains(page, "#peer", alice.peer);
    await contains(page, "#addresses", "/ip4/127.0.0.1/tcp/");
    await contains(page, "#reachability", "reachable: the network is local");
    await contains(page, "#ready", "yes");
    await contains(page, "#phases [aria-current=step]", "joined");
    await contains(page, "#boot-nodes", `${boot.peer} connected`);
    await contains(page, "#boot-nodes", "unreachable: ");
    assert.equal(await page.locator("#phases li").count(), 5);
    assert.ok((await page.locator("#resource-list meter").count()) > 3);
  },

  async "the network is judged in words"(page) {
    await contains(page, "#network-direct", "every peer reaches this node directly");
    await contains(page, "#network-facts", "port mapping off");
    await contains(page, "#network-servers", `boot node …${boot.peer.slice(-8)}: connected`);
  },

  async "peers have path, transport, round trip and traffic"(page) {
    const row = page.locator("#peer-rows tr", { hasText: bob.peer.slice(-8) }).first();
    await until("a round trip", async () => /[0-9.]+ ms/.test(await row.locator("[data-label=RTT]").innerText()));
    assert.match(await row.locator("[data-label=Path]").innerText(), /direct, (in|out)bound/);
    assert.match(await row.locator("[data-label=Transport]").innerText(), /(tcp|quic), /);
    assert.match(await row.locator("[data-label=Received]").innerText(), /[0-9.]+ (B|KiB|MiB)/);
    await row.getByRole("button", { name: "Ping" }).click();
    await until("a pong", async () => /[0-9.]+ ms, direct/.test(await text(page, "#peers-message")));
  },

  async "text of peers is never markup"(page) {
    const agent = page.locator("#peer-rows td[data-label=Agent]", { hasText: "onerror" }).first();
    assert.equal(await agent.innerText(), MARKUP);
    const titles = await page.locator("#topic-list h3").allInnerTexts();
    assert.ok(titles.includes(MARKUP_TOPIC), String(titles));
    assert.equal(await page.locator("#injected").count(), 0);
    assert.equal(await page.evaluate(() => window.injected), undefined);
    // The policy refuses what the scripts of the page do not do.
    const refused = await page.evaluate(() => {
      try {
        document.createElement("p").innerHTML = "<b>x</b>";
        return false;
      } catch (error) {
        return error instanceof TypeError;
      }
    });
    assert.ok(refused, "the policy lets text become markup");
    // Chromium reports this attempt.
    const own = (fault) => fault.includes("TrustedHTML") || fault.includes("Trusted Type");
    faults.splice(0, faults.length, ...faults.filter((fault) => !own(fault)));
  },

  async "the mesh of a topic is drawn, and messages arrive"(page) {
    const topic = page.locator("#topic-list article", { has: page.getByText(TOPIC, { exact: true }) });
    await until("bob in the mesh", () => topic.locator(`circle.in-mesh[data-peer="${bob.peer}"]`).count());
    assert.match(await topic.locator("svg").getAttribute("aria-label"), /1 peers in the mesh/);
    await topic.getByRole("button", { name: "Read messages" }).click();
    await topic.getByRole("button", { name: "Stop reading" }).waitFor();
    const other = await open(bob);
    const there = other.locator("#topic-list article", { has: other.getByText(TOPIC, { exact: true }) });
    await there.getByLabel(`Message to ${TOPIC}`).fill("sunny <b id=injected>today</b>");
    await there.getByRole("button", { name: "Publish" }).click();
    await until("the message", async () => (await topic.locator("ol").innerText()).includes("sunny <b id=injected>"));
    await contains(page, "#event-list", "sunny <b id=injected>today</b>");
    assert.equal(await page.locator("#injected").count(), 0);
    await other.context().close();
  },

  async "a file goes from page to page by a ticket"(page) {
    const content = Buffer.alloc(3_000_000, "calnet ");
    const other = await open(bob);
    await other.locator("#files").setInputFiles({ name: "forecast.txt", mimeType: "text/plain", buffer: content });
    await contains(other, "#transfers", "added as ");
    const stored = other.locator("#blob-list li").first();
    await stored.getByRole("button", { name: "Ticket" }).click();
    const ticket = await stored.locator("textarea").inputValue();
    assert.match(ticket, /^calnet[a-z2-7]+$/);
    await page.locator("#fetch-ticket").fill(ticket);
    await page.getByRole("button", { name: "Fetch", exact: true }).click();
    await contains(page, "#transfers", "fetched ");
    await contains(page, "#blob-list", "forecast.txt");
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.locator("#blob-list li").first().getByRole("button", { name: "Save" }).click(),
    ]);
    assert.equal(download.suggestedFilename(), "forecast.txt");
    const chunks = [];
    for await (const chunk of await download.createReadStream()) {
      chunks.push(chunk);
    }
    assert.ok(Buffer.concat(chunks).equals(content), "another content was saved");
    await other.context().close();
  },

  async "files and tickets can be dropped"(page) {
    const drop = (kind, value) => page.evaluate(([kind, value]) => {
      const dataTransfer = new DataTransfer();
      if (kind === "file") {
        dataTransfer.items.add(new File([value], "dropped.txt"));
      } else {
        dataTransfer.setData("text/plain", value);
      }
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }, [kind, value]);
    await drop("file", "dropped content");
    await contains(page, "#transfers", "Add dropped.txt");
    await contains(page, "#blob-list", "dropped.txt");
    await drop("text", `calnet${"a".repeat(40)}`);
    await contains(page, "#transfers", "checksum");
    // A refused request is an error in the console of a browser.
    const own = (fault) => fault.includes("400");
    faults.splice(0, faults.length, ...faults.filter((fault) => !own(fault)));
  },

  async "the page works by keyboard and has names for a screen reader"() {
    const page = await open(alice);
    await contains(page, "#blob-list", "Ticket");
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    const reached = new Set();
    for (let count = 0; count < 80; count += 1) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.textContent));
    }
    for (const id of ["connect-address", "subscribe-topic", "files", "fetch-ticket", "event-list"]) {
      assert.ok(reached.has(id), `${id} is not reached by Tab`);
    }
    const nameless = await page.evaluate(() => {
      const name = (one) => one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent;
      const controls = document.querySelectorAll("button, input, textarea, meter, progress, svg, section, [role]");
      return [...controls].filter((one) => !name(one)?.trim()
        && !one.getAttribute("aria-labelledby") && !one.matches("[role=status], [role=alert]"))
        .map((one) => one.outerHTML);
    });
    assert.deepEqual(nameless, []);
    assert.equal(await page.evaluate(() => document.documentElement.lang), "en");
    await page.context().close();
  },

  async "a phone does not scroll sideways"(page) {
    await page.setViewportSize(PHONE);
    const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= width, `${wide} px of content on ${width} px`);
    await page.evaluate(() => scrollTo(0, 0));
    await picture(page, "page-phone");
    await page.setViewportSize(DESKTOP);
  },

  async "dark mode has other colours, with contrast"(page) {
    const contrast = () => page.evaluate(() => {
      const light = (colour) => {
        const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
          const value = part / 255;
          return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const back = light(getComputedStyle(document.querySelector(".card")).backgroundColor);
      const ratios = ["dd", ".quiet", "a", ".good", "dt"].map((selector) => {
        const one = light(getComputedStyle(document.querySelector(`main ${selector}, ${selector}`)).color);
        return (Math.max(one, back) + 0.05) / (Math.min(one, back) + 0.05);
      });
      return { back, least: Math.min(...ratios) };
    });
    await picture(page, "page-light");
    const light = await contrast();
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await contrast();
    await picture(page, "page-dark");
    assert.ok(light.back > 0.8 && dark.back < 0.1, JSON.stringify([light, dark]));
    // WCAG 2.2, 1.4.3: text has a contrast of 4.5 to 1.
    assert.ok(light.least >= 4.5 && dark.least >= 4.5, JSON.stringify([light, dark]));
    await page.emulateMedia({ colorScheme: "light" });
  },

  async "the token is asked for, checked and kept nowhere"() {
    const page = await open(alice, {}, "");
    await page.locator("#token").fill(`${alice.token.slice(1)}0`);
    await page.locator("#token").press("Enter");
    await contains(page, "#login-error", "wrong");
    assert.ok(await page.locator("main").isHidden());
    await page.locator("#token").fill(alice.token);
    await page.getByRole("button", { name: "Open" }).click();
    await contains(page, "#peer", alice.peer);
    // 401 is an error in the console of a browser.
    assert.ok(page.faults.every((fault) => fault.includes("401")), String(page.faults));
    faults.splice(0, faults.length, ...faults.filter((fault) => !page.faults.includes(fault)));
    const linked = await open(alice);
    await contains(linked, "#peer", alice.peer);
    for (const one of [page, linked]) {
      const kept = await one.evaluate(() => [
        location.href, document.cookie, JSON.stringify({ ...localStorage, ...sessionStorage }),
        JSON.stringify(history.state), document.documentElement.outerHTML,
        [...document.querySelectorAll("input, textarea")].map((field) => field.value).join(" "),
      ].join("\n"));
      assert.ok(!kept.includes(alice.token), "the token is kept");
      await one.context().close();
    }
  },

  async "six topics and six files leave connections for what else is asked"(page) {
    for (let nth = 0; nth < 6; nth += 1) {
      await page.locator("#subscribe-topic").fill(`topic-${nth}`);
      await page.locator("#subscribe-topic").press("Enter");
    }
    for (let nth = 0; nth < 6; nth += 1) {
      const name = page.getByText(`topic-${nth}`, { exact: true });
      const topic = page.locator("#topic-list article", { has: name });
      await topic.getByRole("button", { name: "Stop reading" }).waitFor();
      await until("the subscription", async () => (await topic.locator("ol").innerText()).includes("subscribed"));
    }
    const files = [0, 1, 2, 3, 4, 5].map((nth) => (
      { name: `file-${nth}`, mimeType: "text/plain", buffer: Buffer.alloc(100_000, `${nth}`) }));
    await page.locator("#files").setInputFiles(files);
    for (const { name } of files) {
      await contains(page, "#blob-list", name);
    }
    // The topics stay open in the next test, in which the page shows that a peer leaves.
    const answer = page.waitForResponse((one) => one.url().endsWith("/ping"));
    const peer = page.locator("#peer-rows tr", { hasText: bob.peer.slice(-8) }).first();
    await peer.getByRole("button", { name: "Ping" }).click();
    assert.equal((await answer).status(), 200);
  },

  async "no message is lost or shown twice while topics are added and left"(page) {
    const path = "**/v1/topics/messages?*";
    const all = (await page.locator("#topic-list h3").allInnerTexts()).filter((name) => name.startsWith("topic-"));
    assert.ok(all.length >= 3, String(all));
    const topic = page.locator("#topic-list article", { has: page.getByText(TOPIC, { exact: true }) });
    await topic.getByRole("button", { name: "Stop reading" }).waitFor();
    // Counted once it has arrived, so that no two of them are published at one time: they have no
    // order then.
    let sent = 0;
    const publish = async () => {
      const name = `number ${sent + 1}.`;
      await bob.publish(TOPIC, name);
      await alice.event("message", (one) => one.text === name);
      sent += 1;
    };
    // Each request for another stream is held until messages have arrived.
    await page.route(path, async (route) => {
      if (route.request().method() === "GET") {
        await publish();
        await publish();
      }
      await route.continue();
    });
    for (const name of all.slice(0, 3)) {
      const before = sent;
      const left = page.locator("#topic-list article", { has: page.getByText(name, { exact: true }) });
      await left.getByRole("button", { name: "Stop reading" }).click();
      await until("another stream", () => sent >= before + 2);
      // Some of these are read by both streams.
      for (let count = 0; count < 5; count += 1) {
        await publish();
      }
    }
    await page.unroute(path);
    await until("the last message", async () => (await topic.locator("ol").innerText()).includes(`number ${sent}.`));
    const texts = (await topic.locator("ol li").allInnerTexts()).filter((text) => text.includes(": number "));
    const numbers = texts.map((text) => Number(/number (\d+)/.exec(text)[1]));
    assert.deepEqual(numbers, Array.from({ length: sent }, (_, nth) => nth + 1));
  },

  async "the limits of circuits are shown for connections and reservations"() {
    const [carol, dave] = [await network.hidden("carol"), await network.hidden("dave")];
    // The page asks whether the node is ready, and 503 is an error in the console of a browser.
    await until("carol is ready", async () => (await fetch(`${carol.url}/readyz`)).ok);
    const page = await open(carol);
    const limit = "at most 8.0 MiB and 1800 s";
    const row = (peer) => page.locator("#peer-rows tr", { hasText: peer.slice(-8) }).first();
    const path = (peer) => row(peer).locator("[data-label=Path]");
    await until("a circuit with its limit", async () => (
      (await path(dave.peer).count()) > 0 && (await path(dave.peer).innerText()).endsWith(`circuit: ${limit}`)));
    assert.match(await path(dave.peer).innerText(), /^relayed, /);
    assert.match(await path(boot.peer).innerText(), /^direct, outbound$/);
    await contains(page, "#held", `reservation held; circuits: ${limit}`);
    await page.context().close();
    await Promise.all([carol.end(), dave.end()]);
  },

  async "a peer that leaves is seen without a reload"(page) {
    const row = page.locator("#peer-rows tr", { hasText: bob.peer.slice(-8) });
    const before = await page.evaluate(() => performance.timeOrigin);
    assert.ok((await row.count()) > 0);
    await bob.end();
    await until("the peer is missing", async () => (await row.count()) === 0);
    await until("the mesh is empty", async () => (await page.locator("circle[data-peer]").count()) === 0);
    await contains(page, "#event-list", "disconnected");
    assert.equal(await page.evaluate(() => performance.timeOrigin), before);
  },
};

let failed = 0;
try {
  const page = await open(alice);
  for (const [name, test] of Object.entries(tests)) {
    const started = Date.now();
    try {
      await test(page);
      assert.deepEqual(faults, []);
      console.log(`ok      ${name} (${Date.now() - started} ms)`);
    } catch (error) {
      failed += 1;
      faults.length = 0;
      console.log(`FAILED  ${name}\n${error.stack}`);
    }
  }
  for (const node of [alice, bob, boot]) {
    assert.ok(!node.log.includes(node.token), "a log has a token");
  }
} finally {
  await browser.close();
  await network.stop();
}
console.log(`${Object.keys(tests).length - failed} of ${Object.keys(tests).length} passed`);
process.exitCode = failed === 0 ? 0 : 1;
