"""What-if: a campaign tried on recorded events, in the background, against what really happened."""
