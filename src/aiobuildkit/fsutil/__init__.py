"""Which files of a directory BuildKit gets, and how they are sent, without I/O."""
