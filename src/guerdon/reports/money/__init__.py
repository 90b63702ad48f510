"""Reports on value: roll-forward, liability, expiring value, leaderboard and the trial balance."""
