"""gRPC: a connection to BuildKit, the calls on it, and their messages."""
