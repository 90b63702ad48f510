"""Reversals: what a transaction moved goes back, in parts or whole, to the very lots it came from."""
