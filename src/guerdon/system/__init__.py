"""Health, metrics, documentation and the pages of the problem types, for operators."""
