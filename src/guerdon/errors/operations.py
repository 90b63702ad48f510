"""Errors of the service itself: it cannot do what it was asked to do now."""

from guerdon.errors.base import OperationsError


class Overloaded(OperationsError):
    code = "overloaded"
    status = 503
    title = "Overloaded"
    page = "The queue is full, and nothing was done. Retry after `Retry-After`, with the same key."


class Retry(Overloaded):
    """The state that a command was made from has changed; nothing was written. The service that made the command catches it and reads again."""

    def __init__(self) -> None:
        super().__init__("the state that the command was made from has changed; nothing was done", retry_after_seconds=1)


class StoreUnavailable(OperationsError):
    code = "temporary-reduced-capacity"
    status = 503
    title = "Requests cannot be counted"
    page = (
        "The shared store of rate limits does not answer, and this route is not served without it. Nothing was done. Retry "
        "after `Retry-After`."
    )


class OutcomeUnknown(OperationsError):
    code = "outcome-unknown"
    status = 503
    title = "Outcome not known yet"
    page = (
        "The deadline passed before the database answered. The command was applied once or not at all. Retry with the same key: "
        "the answer states which."
    )


class DatabaseUnavailable(OperationsError):
    code = "database-unavailable"
    status = 503
    title = "Database unavailable"
    page = "The database cannot be reached or has no primary at the moment. Retry with the same key."


class ViewsNotBuilt(OperationsError):
    code = "views-not-built"
    status = 503
    title = "Views are not built yet"
    page = (
        "Reports are read from views that workers build from the entries. No version of the views is complete yet. Run `guerdon worker`, "
        "and retry after `Retry-After`."
    )


class ClockSkewed(OperationsError):
    code = "clock-skewed"
    status = 503
    title = "Clock differs from that of the database"
    page = (
        "The clock of this process's machine and the clock of the database differ by more than `GUERDON_CLOCK_SKEW_MAX_MS`. `skew_ms` is "
        "the time of the machine minus that of the database. Synchronise both machines with the same time servers (NTP). Requests are "
        "decided by the time of the database."
    )


class ViewsBehind(OperationsError):
    code = "views-behind"
    status = 503
    title = "Views have not reached the time yet"
    page = (
        "The views that the figures are read from do not yet contain everything up to the time that is needed. `as_of` is the time that they "
        "have reached, `needed` the time that they have to reach. Check that a worker runs, and retry after `Retry-After`."
    )


class Internal(OperationsError):
    code = "internal-error"
    status = 500
    title = "Internal error"
    page = "An unexpected fault of the service. Its log has the details under the `request_id` of the problem document."


class StartupRefused(OperationsError):
    """The process must not start. The message is for the person at the terminal."""

    code = "startup-refused"
    status = 500
    title = "Start-up refused"
    page = "The configuration or the database is not safe to run on. The message names the cause."


class DatabaseLost(OperationsError):
    """The embedded database cannot be kept running. The message is for the person at the terminal."""

    code = "database-lost"
    status = 500
    title = "Embedded database lost"
    page = "The embedded database has ended several times in a row. The message names the cause."


class DataDirectoryBusy(StartupRefused):
    """Another running process holds the data directory."""

    code = "data-directory-busy"
    title = "Data directory is in use"
    page = "Another running process uses the data directory. The message names it."
