export { build, cancel, follow, status, submit } from "./builds.js";
export type { BuildConfig, BuildInfo, BuildOptions, FollowOptions, OnLog, SubmitOptions } from "./builds.js";
export { CallbackRefused, verifyCallback } from "./callback.js";
export type { CallbackEvent, CallbackSecrets } from "./callback.js";
export type { ContextFile, Files } from "./context.js";
export { BuilderError, BuildFailed, ContextError, Refused, Unreachable } from "./errors.js";
export type { BuildResult } from "./errors.js";
export type { Secret } from "./signing.js";
export type { Connection } from "./transport.js";
