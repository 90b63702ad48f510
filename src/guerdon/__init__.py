"""Guerdon: wallets that never lose a unit, rewards that explain themselves."""

__version__ = "0.1.0"
