"""Check of the views: every sum is computed a second time from the ledger and the events, by other means, and compared."""
