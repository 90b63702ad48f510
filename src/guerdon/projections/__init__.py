"""Materialised views: state that is derived from append-only collections, applied exactly once, and rebuilt at any time.

This package is the mechanism; `guerdon.views` says what is derived. A view never writes to the ledger and no command reads one.
"""
