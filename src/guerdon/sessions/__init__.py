"""Sessions: logging in, staying logged in by rotating refresh tokens, and logging out, here or everywhere."""
