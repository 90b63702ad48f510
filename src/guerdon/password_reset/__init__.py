"""Recovery: a new password for whoever can read what is sent to their address."""
