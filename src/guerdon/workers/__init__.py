"""Background work: jobs on their schedules, shared by any number of worker processes through leases in the database."""
