"""Reports for the accounts of a company: breakage, and deferred revenue by IFRS 15 and ASC 606."""
