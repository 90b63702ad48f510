"""Holds: value set aside for a later capture, in parts or whole, until it is captured, voided or expires."""
