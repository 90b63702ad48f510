"""Transactions of several postings over wallets and system accounts, in one commit."""
