"""Second factors: a code from an authenticator besides the password, for those who work here."""
