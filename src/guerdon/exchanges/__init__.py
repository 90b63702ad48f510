"""Rates between assets, and exchanges of a member's value at them."""
