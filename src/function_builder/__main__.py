"""The program `function-builder`, which `python -m function_builder` runs too.

Each command's libraries are in an extra of the distribution. Without them, one line says so.
"""

from __future__ import annotations

import sys
from typing import Final

_EXTRAS: Final = {
    "certs": "certs",
    "doctor": "server",
    "policy": "server",
    "serve": "server",
    "setup": "server",
    "tenants": "server",
    "up": "server",
}
"""The extras with a command's libraries; `cli` has those of every other command."""


def main() -> None:
    """Run the command that the program's arguments name."""
    try:
        from function_builder.cli import main as run_command  # noqa: PLC0415 (may be absent)

        run_command()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(__package__):
            raise
        extra = next((_EXTRAS[word] for word in sys.argv[1:2] if word in _EXTRAS), "cli")
        sys.exit(f"error: {error.name} is missing: pip install 'function-builder[{extra}]'")


if __name__ == "__main__":
    main()
