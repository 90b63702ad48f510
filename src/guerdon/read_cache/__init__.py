"""Copies of wallets in Valkey or Redis for reads. A copy is never the truth: no command reads one, and a reader can name the oldest it accepts."""
