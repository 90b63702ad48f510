"""Pause between the runs of a job."""

BACKOFF_MS_MAX = 300_000
DOUBLINGS_MAX = 20


def pause_ms(every_ms: int, failures: int) -> int:
    """Return the milliseconds from the start of one run to the start of the next: `every_ms`, doubled for each consecutive failure."""
    return min(every_ms << min(failures, DOUBLINGS_MAX), pause_ms_max(every_ms))


def pause_ms_max(every_ms: int) -> int:
    """Return the maximum of `pause_ms`: five minutes, or `every_ms` if that is longer."""
    return max(every_ms, BACKOFF_MS_MAX)
