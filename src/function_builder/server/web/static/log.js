// A build's log as the API streams it: JSON lines, each with lines of the log and their steps.
// No text of a build becomes markup: it enters the page by textContent only.

const PREFIX = /^([vsl]): (\S+) ?/;
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ?/;
const SIGNED_OUT = "Sign in again: the session has ended.";
const TOOK = / (\d+\.\d\d)s$/;

/**
 * One line of the log.
 * @typedef {{number: number, text: string, step: number, state: string, time: number|null}} Line
 */

/** Read a line; `step` is the API's text: "3", "3 started" or "". @returns {Line} */
function parse(number, raw, step) {
  let text = raw;
  let time = null;
  const prefix = PREFIX.exec(text);
  if (prefix) text = text.slice(prefix[1].length + 2);
  const stamp = TIME.exec(text);
  if (stamp) {
    time = Date.parse(stamp[1]);
    text = text.slice(stamp[0].length);
  }
  const [which, state = ""] = step.split(" ");
  return { number, text, step: Number(which) || 0, state, time };
}

/**
 * Yield arrays of lines until the build has ended. A connection that breaks off is resumed after
 * the last line that came.
 * @param {string} url of the log
 * @param {(text: string) => void} tell is told how the connection stands
 * @param {AbortSignal} session is aborted when the browser is no longer signed in
 */
export async function* follow(url, tell, session) {
  let after = 0;
  for (let failures = 0; ; failures++) {
    try {
      const response = await fetch(`${url}?after=${after}`, { cache: "no-store", signal: session });
      if (response.status === 401) return tell(SIGNED_OUT);
      if (!response.ok) throw new Error(`the builder answered ${response.status}`);
      for await (const row of rows(response.body)) {
        failures = 0;
        if (row.status !== "in_progress") return tell("");
        const log = row.log ?? [];
        const first = (row.after ?? after + log.length) - log.length + 1;
        after = first + log.length - 1;
        if (log.length) yield log.map((text, at) => parse(first + at, text, row.steps?.[at] ?? ""));
        tell("");
      }
    } catch (error) {
      if (session.aborted) return tell(SIGNED_OUT);
      tell(`The connection was lost (${error.message}); trying again …`);
    }
    await new Promise((resume) => setTimeout(resume, Math.min(1000 * 2 ** failures, 15000)));
  }
}

async function* rows(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

/** What is known of the steps, in the order in which they began. */
export class Steps {
  constructor() {
    /** @type {Map<number, {number: number, name: string, began: number|null, took: number, state: string}>} */
    this.all = new Map();
    this.start = null;
    this.end = null;
  }

  /** Take a line in; returns the step that it changed, or null. @param {Line} line */
  observe(line) {
    if (line.time !== null) {
      this.start = Math.min(this.start ?? line.time, line.time);
      this.end = Math.max(this.end ?? line.time, line.time);
    }
    if (!line.step || !line.state || line.state === "announced") return null;
    const step = this.all.get(line.step);
    if (line.state === "moving" || line.state === "moved") return step ?? null;
    const took = TOOK.exec(line.text);
    const name = took && line.state !== "started" ? line.text.slice(0, took.index) : line.text;
    const now = step ?? { number: line.step, name, began: line.time, took: 0, state: "" };
    now.state = line.state;
    if (took && line.state !== "started") {
      now.took = Math.max(now.took, Number(took[1]));
      if (line.time !== null) this.end = Math.max(this.end, line.time + now.took * 1000);
    }
    this.all.set(line.step, now);
    return now;
  }
}

const SGR = /\x1b\[([0-9;]*)m/g;
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x1b\x07]*(?:\x07|\x1b\\)?|[ -~]?)/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/** A line's text without what steers a terminal, or the direction of text. */
export function plain(text) {
  return text.replace(ESCAPES, "").replace(CONTROLS, "");
}

/** Show a text in an element, with the 16 colours of ANSI and bold. */
export function colour(element, text) {
  if (!text.includes("\x1b[")) {
    element.textContent = plain(text);
    return;
  }
  let style = { bold: false, colour: "" };
  let from = 0;
  const piece = (until) => {
    const shown = plain(text.slice(from, until));
    if (!shown) return;
    const span = document.createElement("span");
    span.textContent = shown;
    if (style.bold) span.classList.add("bold");
    if (style.colour) span.classList.add(style.colour);
    element.append(span);
  };
  for (const code of text.matchAll(SGR)) {
    piece(code.index);
    from = code.index + code[0].length;
    style = restyle(style, code[1]);
  }
  piece(text.length);
}

function restyle(style, codes) {
  let { bold, colour: now } = style;
  const numbers = codes.split(";").map(Number);
  for (let at = 0; at < numbers.length; at++) {
    const code = numbers[at];
    if (code === 0) [bold, now] = [false, ""];
    else if (code === 1) bold = true;
    else if (code === 22) bold = false;
    else if (code >= 30 && code <= 37) now = `ansi${code - 30}`;
    else if (code >= 90 && code <= 97) now = `ansi${code - 90}`;
    else if (code === 39) now = "";
    // 256 and true colours are not shown; their parameters are no codes of their own.
    else if (code === 38 || code === 48) at += numbers[at + 1] === 5 ? 2 : 4;
  }
  return { bold, colour: now };
}
