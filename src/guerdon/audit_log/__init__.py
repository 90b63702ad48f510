"""The audit log: an append-only, hash-chained record of the actions of staff and of commands at a terminal."""
