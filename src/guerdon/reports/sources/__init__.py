"""Sources of a spend: the transactions that brought the value that it took."""
