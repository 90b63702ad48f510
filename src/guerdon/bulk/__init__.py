"""Bulk requests: many commands on wallets, holds and transactions, each with its own key and result."""
