"""Simulations: a campaign is tried on recorded events in the background, and compared with the real result."""
