"""What the people who run the service look at: health, metrics, documentation and the pages of the problem types."""
