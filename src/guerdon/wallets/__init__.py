"""Wallets of members: credit, debit, transfer, bulk commands, balances and account rules."""
