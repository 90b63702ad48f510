"""The audit log: what people who work here, and commands at a terminal, have done; appended to, chained, never changed."""
