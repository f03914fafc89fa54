/** An error of this package: one line that says what was wrong and what to do. */
export class BuilderError extends Error {
  override name = "BuilderError";
}

/** The build context cannot be sent. Nothing was sent. */
export class ContextError extends BuilderError {
  override name = "ContextError";
}

/** The builder did not answer, or its answer was cut off. */
export class Unreachable extends BuilderError {
  override name = "Unreachable";
}

/** The builder, or a proxy before it, answered without doing what was asked. */
export class Refused extends BuilderError {
  override name = "Refused";

  constructor(
    readonly status: number,
    reason: string,
    /** Seconds after which to ask again, if the answer has them. */
    readonly retryAfter?: number,
  ) {
    super(`${status}: ${reason}`);
  }
}

/** The build ended without an image. */
export class BuildFailed extends BuilderError {
  override name = "BuildFailed";

  constructor(readonly result: BuildResult) {
    super(result.error || "the build failed");
  }
}

/** A build's end, as the last object of an answer has it. */
export interface BuildResult {
  status: "success" | "failed";
  image?: string;
  /** Of what was pushed. */
  digest?: string;
  /** Of each reference that was pushed. */
  digests?: Record<string, string>;
  error?: string;
  /** Rows of a manifest whose content the builder lacks. */
  missing?: number[][];
  /** Seconds. */
  duration: number;
  buildId?: string;
  /** What failed. Accept words that you do not know. */
  reason?: string;
  /** The step that failed. */
  step?: string;
  /** The rule of the source policy that denied a source. */
  rule?: string;
  /** The instruction that failed, with the lines around it. */
  source?: { file: string; line: number; endLine: number; excerpt: string };
  /** Whether the same request may succeed later. */
  retryable?: boolean;
  warnings?: { message: string; rule?: string; url?: string; file?: string; line?: number }[];
}
