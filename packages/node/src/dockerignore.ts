// Which files .dockerignore leaves out, as moby/patternmatcher decides.
//
// BuildKit applies the file to what arrives, so only the files that are certainly left out may be
// missing. A file with a pattern beyond names, `*`, `?` and `**` is therefore not applied here:
// `matcher` returns undefined, and the whole directory is sent.
const KNOWN = /^[\p{L}\p{N}_ .@~,=%:*?/-]+$/u;
const SPACES = /^[\s\u0085]+|[\s\u0085]+$/gu;

interface Pattern {
  exception: boolean;
  matches(path: string): boolean;
}

/** Whether each pattern matched a directory, for the paths in it. */
export type Results = readonly boolean[];

export interface Matcher {
  /** Whether a path is left out, and the results for the paths in it. */
  match(path: string, parent: Results): { ignored: boolean; results: Results };
  /** Whether an exception may include something below a directory that is left out. */
  hasExceptions: boolean;
}

/** The matcher of a .dockerignore; undefined if it leaves nothing out, or has an unusual pattern. */
export function matcher(content: string): Matcher | undefined {
  const patterns: Pattern[] = [];
  for (const line of content.replace(/^\uFEFF/, "").split("\n")) {
    if (line.startsWith("#")) continue;
    const text = line.replace(/\r$/, "").replace(SPACES, "");
    if (!text) continue;
    const exception = text.startsWith("!");
    const glob = clean(exception ? text.slice(1).replace(SPACES, "") : text);
    if (glob === "." || !KNOWN.test(glob) || glob.startsWith("..")) return undefined;
    patterns.push({ exception, matches: predicate(glob) });
  }
  if (!patterns.length) return undefined;
  return {
    hasExceptions: patterns.some((pattern) => pattern.exception),
    match(path, parent) {
      let ignored = false;
      const results = patterns.map((pattern, index) => {
        // A pattern that cannot change the outcome is not tested, and paths below inherit that.
        const hit = parent[index] || (pattern.exception === ignored && pattern.matches(path));
        if (hit) ignored = !pattern.exception;
        return hit;
      });
      return { ignored, results };
    },
  };
}

/** Go's filepath.Clean, and without a slash at the start. */
function clean(pattern: string): string {
  const parts: string[] = [];
  for (const part of pattern.split("/")) {
    if (part === "..") {
      if (parts.length && parts.at(-1) !== "..") parts.pop();
      else if (!pattern.startsWith("/")) parts.push(part);
    } else if (part && part !== ".") parts.push(part);
  }
  return parts.join("/") || ".";
}

function predicate(glob: string): (path: string) => boolean {
  if (!/[*?]/.test(glob)) return (path) => path === glob;
  const [, prefix] = /^([^*?]+)\*\*$/.exec(glob) ?? [];
  if (prefix !== undefined) return (path) => path.startsWith(prefix);
  const [, suffix] = /^\*\*([^*?]*)$/.exec(glob) ?? [];
  if (suffix !== undefined) return (path) => path.endsWith(suffix) || `/${path}` === suffix;
  const expression = new RegExp(`^${glob.replace(/\*\*\/?$|\*\*\/?|[*?.]|[^*?.]+/g, piece)}$`, "su");
  return (path) => expression.test(path);
}

function piece(text: string, at: number, glob: string): string {
  if (text.startsWith("**")) return at + text.length === glob.length ? ".*" : "(.*/)?";
  return { "*": "[^/]*", "?": "[^/]", ".": "\\." }[text] ?? text;
}
