"""Views that reports are read from: what is derived of each account, each member, and of all together.

`fold_entries` and `fold_events` are pure, so the same functions serve the rebuild, the stream, the check and the tests.
"""
