"""What people may ask of those who keep data about them: all of it, and to be forgotten; and the keys that make both possible."""
