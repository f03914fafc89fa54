"""What a session offers to BuildKit, and the connection over which BuildKit asks for it."""
