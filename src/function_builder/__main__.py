"""``python -m function_builder`` is the command ``function-builder``."""

from function_builder.cli import main

main()
