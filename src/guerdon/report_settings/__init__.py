"""Settings of the reports by asset: what a point is worth and costs, and how much is expected to be redeemed. Versions are never changed."""
