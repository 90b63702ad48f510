"""Every query that the product sends: what it looks like, who sends it, and how much the database has to look at to answer it."""
