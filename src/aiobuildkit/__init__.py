"""An asyncio client of BuildKit."""
