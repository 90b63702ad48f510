"""Smart rewards: shop events, campaigns, and decisions that say why."""
