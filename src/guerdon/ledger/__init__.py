"""Accounts and entries: the only room that writes balances. It knows nothing of HTTP."""
