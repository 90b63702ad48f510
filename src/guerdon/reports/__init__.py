"""Reports on the rows of the views."""
