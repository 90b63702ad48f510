"""Shared parts of controllers: declared operations, bodies, queries, cursors, responses and deadlines."""
