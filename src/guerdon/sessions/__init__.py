"""Sessions: log-in, rotation of refresh tokens, and log-out from one or all sessions."""
