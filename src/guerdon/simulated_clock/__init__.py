"""Simulated clock of the development profile. Expiries and schedules can be tested by moving it forward."""
