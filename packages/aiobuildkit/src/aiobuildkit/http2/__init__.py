"""HTTP/2 without I/O: bytes in, events out."""
