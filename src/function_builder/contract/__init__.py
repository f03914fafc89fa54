"""The Function Builder API as values, shared by server and client: bytes in, no I/O."""
