"""Holds: value set aside for a later capture, in part or whole."""
