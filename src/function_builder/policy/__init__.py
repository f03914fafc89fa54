"""What a request may ask of BuildKit, and of a registry."""
