"""The choice of files that BuildKit gets, and the transfer protocol, without I/O."""
