"""Accounts and entries: the only package that writes balances. It does not depend on HTTP."""
