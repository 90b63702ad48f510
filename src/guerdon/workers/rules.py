"""When a job is due again."""

BACKOFF_MS_MAX = 300_000
DOUBLINGS_MAX = 20


def pause_ms(every_ms: int, failures: int) -> int:
    """Return the milliseconds from the beginning of one run to the next: `every_ms`, doubled for each failure in a row."""
    return min(every_ms << min(failures, DOUBLINGS_MAX), pause_ms_max(every_ms))


def pause_ms_max(every_ms: int) -> int:
    """Return the longest pause that `pause_ms` can give: five minutes, or `every_ms` where that is longer."""
    return max(every_ms, BACKOFF_MS_MAX)
