"""Month close: the figures of a month are frozen once, with their digest, and never change."""
