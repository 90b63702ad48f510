"""Background jobs on schedules. Any number of worker processes share them through leases in the database."""
