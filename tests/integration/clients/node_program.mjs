// What test_node_package.py runs beside the installed package: node program.mjs CALL ARGUMENT JSON
import { build, cancel, follow, status, submit } from "function-builder";

const [call, argument, json] = process.argv.slice(2);
const { abortAt, ...options } = JSON.parse(json);
const source = argument.startsWith("{") ? JSON.parse(argument) : argument;
const controller = new AbortController();
const onLog = (line, step) => {
  console.log(`log ${step ? "in a step" : "-"} ${line}`);
  if (abortAt && line.includes(abortAt)) controller.abort();
};
try {
  const result = await { build, cancel, follow, status, submit }[call](source, { ...options, onLog, signal: controller.signal });
  console.log(JSON.stringify(result));
} catch (error) {
  console.log(JSON.stringify({ name: error.name, message: error.message, result: error.result }));
}
