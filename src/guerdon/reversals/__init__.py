"""Reversals: return the value of a transaction, in part or whole, to the lots that it came from."""
