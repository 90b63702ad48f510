"""Report on members: who is active, new or returning, cohorts, and tiers."""
