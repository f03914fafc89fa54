// node pack.js DIRECTORY ARCHIVE [portable]: the directory's content by npm's tar.
"use strict";

const { readdirSync } = require("node:fs");
const { create } = require("tar");

const [directory, archive, ...options] = process.argv.slice(2);
create(
  { file: archive, cwd: directory, portable: options.includes("portable") },
  readdirSync(directory),
).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
