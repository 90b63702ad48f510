"""Password resets: a new password for a member who can read the mail that is sent to their address."""
