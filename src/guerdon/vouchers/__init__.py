"""Vouchers: offers, what is redeemed from them, and the codes that stand for it."""
