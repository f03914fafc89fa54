// The page of one build: its timeline, its log by step, and facts that change while it runs.

import { Steps, colour, follow, plain } from "./log.js";

const REFRESH_MILLISECONDS = 2000;
const CHUNK_LINES = 200; // The browser lays out the chunks that are in view (content-visibility).
const PIECE_LINES = 2000; // Lines that are added before the browser may do something else.
const MOST_HITS = 10000;

const byId = (id) => document.getElementById(id);
const make = (tag, name, text = "") => {
  const element = document.createElement(tag);
  element.className = name;
  if (text) element.textContent = text;
  return element;
};
const session = new AbortController(); // Aborted when the builder says that it has ended.
const breathe = () => new Promise((resume) => setTimeout(resume));

/** The log, in one section for each step. */
class LogView {
  constructor(root) {
    this.root = root;
    this.sections = new Map();
    this.lines = [];
  }

  section(number, name) {
    let section = this.sections.get(number);
    if (!section) {
      const details = make("details", "step");
      details.id = `step${number}`;
      details.open = true;
      const summary = make("summary", "");
      const title = make("span", "title");
      const took = make("span", "took");
      summary.append(title, took);
      details.append(summary);
      this.root.append(details);
      section = { details, title, took, chunk: null, count: 0 };
      this.sections.set(number, section);
    }
    if (name && section.title.textContent !== name) section.title.textContent = name;
    return section;
  }

  add(line, name) {
    const section = this.section(line.step, name);
    if (section.count % CHUNK_LINES === 0) {
      section.chunk = make("div", "chunk");
      section.details.append(section.chunk);
    }
    section.count++;
    const row = make("div", "line");
    row.id = `L${line.number}`;
    row.dataset.number = line.number;
    colour(row, line.text);
    section.chunk.append(row);
    this.lines.push(row);
  }
}

/** The timeline of steps. */
class Timeline {
  constructor(root, steps) {
    this.root = root;
    this.steps = steps;
    this.rows = new Map();
  }

  draw() {
    const { start, end } = this.steps;
    const whole = start === null ? 0 : Math.max(end - start, 1);
    for (const step of this.steps.all.values()) this.row(step, start, whole);
  }

  row(step, start, whole) {
    let row = this.rows.get(step.number);
    if (!row) {
      const item = make("li", "");
      const link = make("a", "name");
      link.href = `#step${step.number}`;
      const track = make("span", "track");
      const bar = make("span", "bar-of-step");
      track.append(bar);
      const took = make("span", "took");
      item.append(link, track, took);
      this.root.append(item);
      row = { item, link, bar, took };
      this.rows.set(step.number, row);
    }
    row.item.className = step.state;
    row.link.textContent = plain(step.name);
    row.took.textContent = tookText(step);
    if (whole && step.began !== null) {
      const running = step.state === "started";
      const width = running ? this.steps.end - step.began : step.took * 1000;
      row.bar.style.insetInlineStart = `${(100 * (step.began - start)) / whole}%`;
      row.bar.style.inlineSize = `${Math.min(100, (100 * width) / whole)}%`;
    }
  }
}

function tookText(step) {
  if (step.state === "started") return "running";
  if (step.state === "cached" || step.state === "cancelled") return step.state;
  const took = `${step.took.toFixed(2)} s`;
  return step.state === "failed" ? `failed, ${took}` : took;
}

/** Search through the lines that have come. */
class Search {
  constructor(view) {
    this.view = view;
    this.hits = [];
    this.at = -1;
    this.input = byId("search");
    this.input.addEventListener("input", () => this.find());
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.go(event.shiftKey ? -1 : 1);
    });
    byId("next").addEventListener("click", () => this.go(1));
    byId("previous").addEventListener("click", () => this.go(-1));
  }

  find() {
    for (const row of this.hits) row.classList.remove("hit", "current");
    const wanted = this.input.value.toLowerCase();
    this.hits = [];
    this.at = -1;
    if (wanted) {
      for (const row of this.view.lines) {
        if (!row.textContent.toLowerCase().includes(wanted)) continue;
        row.classList.add("hit");
        if (this.hits.push(row) === MOST_HITS) break;
      }
    }
    const some = this.hits.length > 0;
    byId("next").disabled = byId("previous").disabled = !some;
    byId("found").textContent = !wanted ? "" : some ? `${this.hits.length} lines` : "not found";
    if (some) this.go(1);
  }

  go(by) {
    if (!this.hits.length) return;
    this.hits[this.at]?.classList.remove("current");
    this.at = (this.at + by + this.hits.length) % this.hits.length;
    const row = this.hits[this.at];
    row.classList.add("current");
    row.closest("details").open = true;
    byId("follow").checked = false;
    row.scrollIntoView({ block: "center" });
    byId("found").textContent = `${this.at + 1} of ${this.hits.length} lines`;
  }
}

/** Keep the facts as they are at the builder until the build has ended. */
async function refreshFacts() {
  while (!("ended" in byId("facts").dataset || session.signal.aborted)) {
    await new Promise((resume) => setTimeout(resume, REFRESH_MILLISECONDS));
    await refreshOnce();
  }
}

async function refreshOnce() {
  const response = await fetch(location.pathname, { cache: "no-store" }).catch(() => null);
  if (response?.status === 401) session.abort();
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const facts = page.getElementById("facts");
  const old = byId("facts");
  if (!facts || facts.innerHTML === old.innerHTML) return;
  document.title = page.title;
  // A button that has the focus must not lose it to one that looks the same.
  if (!old.contains(document.activeElement) || facts.dataset.state !== old.dataset.state) {
    old.replaceWith(document.adoptNode(facts));
  }
}

function goToLine() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  for (const row of document.querySelectorAll(".line.target")) row.classList.remove("target");
  if (!target) return;
  target.closest("details")?.setAttribute("open", "");
  if (target.classList.contains("line")) target.classList.add("target");
  byId("follow").checked = false;
  target.scrollIntoView({ block: "center" });
}

async function showLog() {
  const steps = new Steps();
  const view = new LogView(byId("log"));
  const timeline = new Timeline(byId("steps"), steps);
  const search = new Search(view);
  const state = byId("log-state");
  const tell = (text) => {
    state.textContent = text;
    state.hidden = !text;
  };
  const scroll = () => {
    if (byId("follow").checked) byId("log").lastElementChild?.scrollIntoView({ block: "end" });
  };
  byId("log").addEventListener("click", (event) => {
    const row = event.target.closest(".line");
    // A selection of text is not a click on its number.
    if (row && getSelection().isCollapsed && event.offsetX < 0) location.hash = row.id;
  });
  addEventListener("hashchange", goToLine);

  let added = 0;
  for await (const lines of follow(`${location.pathname}/log`, tell, session.signal)) {
    for (const line of lines) {
      const step = steps.observe(line);
      if (step) {
        const section = view.section(step.number, plain(step.name));
        section.took.textContent = tookText(step);
        section.details.classList.toggle("failed", step.state === "failed");
      }
      if (!line.state) view.add(line, line.step ? "" : "Builder");
      if (++added % PIECE_LINES === 0) {
        timeline.draw();
        await breathe();
      }
    }
    timeline.draw();
    scroll();
  }
  if (!view.sections.size && state.hidden) tell("This build has no log, or it was deleted.");
  if (search.input.value) search.find();
  goToLine();
  byId("log").dataset.complete = "";
  await refreshOnce();
}

await Promise.all([showLog(), refreshFacts()]);
