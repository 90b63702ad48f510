"""Segments of members: groups by recency, frequency and money that are computed each night, and segments by a condition of the programme's own."""
