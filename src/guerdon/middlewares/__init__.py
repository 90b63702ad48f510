"""Middlewares of every request: body, queue, log, authentication, rate limits, audit log, and one shape for every error."""
