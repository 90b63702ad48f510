"""Documents that the counting fold refuses, while a test says so."""

REFUSED: set[str] = set()


class Refused(Exception):
    pass


def check(document_id: str) -> None:
    if document_id in REFUSED:
        raise Refused(document_id)


__all__ = ["REFUSED", "Refused", "check"]
