"""The base class of errors and the three families."""

from collections.abc import Iterator
from typing import ClassVar, Self

from guerdon.money import AmountText, ScaleOf, scale_unknown


class GuerdonError(Exception):
    """An error with a code, an HTTP status and a page."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    page: ClassVar[str]

    def __init__(self, detail: str | AmountText, *, retry_after_seconds: int | None = None, **members: object) -> None:
        self._wording = None if isinstance(detail, str) else detail
        self.detail = detail if isinstance(detail, str) else detail.text(scale_unknown)
        super().__init__(self.detail)
        self.retry_after_seconds = retry_after_seconds
        self.members = members
        """Further members of the problem document: only what a client can act on."""
        self.replayed = False
        """True if this is the remembered answer to an earlier run of the same request."""
        self.headers: dict[str, str] = {}
        """Header fields of the answer."""
        self.subject: object = None
        """The refused transaction of a command with several."""
        self.incident: tuple[str, str] | None = None
        """Name and subject of the event in the security log, where status and code do not determine them."""

    def write_amounts(self, scale_of: ScaleOf) -> None:
        """Write the amounts of the detail as people read them: `£6.99`. A detail without amounts stays as it is."""
        if self._wording is not None:
            self.detail = self._wording.text(scale_of)
            self.args = (self.detail,)

    def concerning(self, name: str, about: str) -> Self:
        """Set the event of the security log, which the answer does not show."""
        self.incident = (name, about)
        return self


class CallerError(GuerdonError):
    """The caller must change the request."""


class BusinessError(GuerdonError):
    """A rule refuses the request in the present state."""


class OperationsError(GuerdonError):
    """The service cannot do it now."""


def registry() -> dict[str, type[GuerdonError]]:
    """Return every error class that has a code, by code."""

    def walk(cls: type[GuerdonError]) -> Iterator[type[GuerdonError]]:
        for child in cls.__subclasses__():
            yield child
            yield from walk(child)

    return {cls.code: cls for cls in walk(GuerdonError) if "code" in vars(cls)}
