"""`python -m function_builder` is the command `function-builder`."""

from __future__ import annotations

from function_builder.cli import main

main()
