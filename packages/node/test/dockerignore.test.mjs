// The patterns that the package understands mean what upstream's own code says they mean.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { matcher } from "../dist/dockerignore.js";

const VECTORS = new URL("../../../tests/unit/aiobuildkit/fsutil/upstream.json", import.meta.url);

function ignored(rules, path) {
  const names = path.split("/");
  let results = [];
  for (let depth = 1; ; depth++) {
    const match = rules.match(names.slice(0, depth).join("/"), results);
    if (depth === names.length) return match.ignored;
    results = match.results;
  }
}

test("patterns match as upstream's", async () => {
  const vectors = JSON.parse(await readFile(VECTORS, "utf8"));
  let understood = 0;
  for (const { question, answer } of vectors) {
    if (!question.patterns || question.tree || question.glob) continue;
    // An ignore file's reader changes these before the patterns are matched.
    if (question.patterns.some((pattern) => /^#|^!?\/|\n/.test(pattern))) continue;
    const rules = matcher(question.patterns.join("\n"));
    if (!rules) continue;
    assert.ok(!answer.refused, JSON.stringify(question.patterns));
    understood++;
    assert.deepEqual(question.paths.map((path) => ignored(rules, path)), answer.matched, JSON.stringify(question));
  }
  assert.ok(understood >= 30, `${understood} vectors`);
});

const CASES = [
  ["node_modules", ["node_modules", "node_modules/a/b"], ["a/node_modules", "node_modules2"]],
  ["**/node_modules", ["node_modules/a", "a/b/node_modules/c"], ["a/node_modules.txt"]],
  ["*.log\n!keep.log", ["a.log"], ["keep.log", "a/b.log"]],
  ["/dist/\r\n# a comment\n\n", ["dist/a"], ["a/dist"]],
  ["*\n!src/**\n", ["a", "b/c"], ["src/a", "src/b/c"]],
  ["docs/**/*.md", ["docs/a.md", "docs/b/c.md"], ["a.md", "docs/a.mdx"]],
  ["a?c", ["abc"], ["ac", "a/c"]],
];
for (const [content, out, kept] of CASES) {
  test(`ignore ${JSON.stringify(content)}`, () => {
    const rules = matcher(content);
    assert.deepEqual(out.filter((path) => !ignored(rules, path)), []);
    assert.deepEqual(kept.filter((path) => ignored(rules, path)), []);
  });
}

test("an unusual pattern leaves nothing out", () => {
  for (const content of ["[a-c]", "a\\*", "(a|b)", "x+", "!", "../a", "# only a comment", ""]) {
    assert.equal(matcher(content), undefined, content);
  }
});
