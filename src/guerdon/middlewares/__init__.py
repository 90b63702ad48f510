"""What happens around every request: observation, authentication, and one shape for every error."""
