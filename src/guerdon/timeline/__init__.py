"""Timeline of a member: entries, events, vouchers and tier changes in one list by time."""
