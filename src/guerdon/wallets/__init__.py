"""A member's wallets: credit, debit, transfer, bulk, balance and history."""
