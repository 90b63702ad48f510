"""Second factors of staff: a code from an authenticator in addition to the password."""
