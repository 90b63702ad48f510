"""History of wallets: entries, balances at past times, monthly statements, and live streams."""
