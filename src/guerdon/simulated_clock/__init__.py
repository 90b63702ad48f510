"""A clock that can be put forward, in development only: what waits for a date can be tried without waiting."""
