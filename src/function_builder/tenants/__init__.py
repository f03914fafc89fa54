"""The tenants of one builder: their file, and how each of them proves itself."""
