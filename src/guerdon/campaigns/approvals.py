"""Approval of campaign versions by a second person. Pure."""

import msgspec

from guerdon.campaigns.models import Campaign, in_force
from guerdon.errors import ApprovalMissing, Forbidden, InvalidState
from guerdon.permissions import Actor


def require_approved(campaign: Campaign, now_ms: int) -> None:
    """
    Raises:
        ApprovalMissing: the version in force, or the one that follows at its `effective_at`, is not approved.
    """
    current = in_force(campaign, now_ms)
    for version in (current, current.coming):
        if version is not None and not version.waits and version.approved_by is None:
            raise ApprovalMissing(f"version {version.version} has not been approved", version=version.version)


def approved(campaign: Campaign, number: int, actor: Actor, now_ms: int) -> Campaign:
    """Return the campaign with a version approved. A version that waited follows at its `effective_at`, or now if that has passed.

    Raises:
        Forbidden: the caller is a service key, or created the version.
        InvalidState: the version is neither in force nor the next one.
    """
    current = in_force(campaign, now_ms)
    version = next((each for each in (current, current.coming) if each is not None and each.version == number), None)
    if version is None:
        raise InvalidState(
            f"version {number} is neither in force nor the next one; read the campaign again", status_now=campaign.status
        )
    if actor.kind != "operator":
        raise Forbidden("a version is approved by a person who has logged in, not by a service key")
    if actor.id == version.created_by:
        raise Forbidden("a version cannot be approved by the person who created it")
    if version.approved_by is not None:
        return campaign
    agreed = msgspec.structs.replace(version, approved_by=actor.id, changed_at=now_ms)
    if version is current:
        return msgspec.structs.replace(agreed, status=campaign.status)
    if version.waits:
        agreed = msgspec.structs.replace(agreed, waits=False, effective_at=max(version.effective_at or now_ms, now_ms))
    return msgspec.structs.replace(current, status=campaign.status, coming=agreed, changed_at=now_ms)
