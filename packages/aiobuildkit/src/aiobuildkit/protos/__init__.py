"""Our subset of BuildKit's messages; `scripts/protos` generates the modules."""
