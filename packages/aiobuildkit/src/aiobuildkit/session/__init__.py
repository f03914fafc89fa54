"""The session: services that this client offers BuildKit, and the connection for them."""
