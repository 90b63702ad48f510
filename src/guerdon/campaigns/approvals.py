"""Four eyes: a campaign's version is approved by somebody else than who made it. Pure."""

import msgspec

from guerdon.campaigns.models import Campaign, in_force
from guerdon.errors import ApprovalMissing, Forbidden, InvalidState
from guerdon.permissions import Actor


def require_approved(campaign: Campaign, now_ms: int) -> None:
    """
    Raises:
        ApprovalMissing: nobody has approved the version that would decide now, or one that follows at its moment.
    """
    current = in_force(campaign, now_ms)
    for version in (current, current.coming):
        if version is not None and not version.waits and version.approved_by is None:
            raise ApprovalMissing(f"version {version.version} has not been approved", version=version.version)


def approved(campaign: Campaign, number: int, actor: Actor, now_ms: int) -> Campaign:
    """Return the campaign with a version approved; what was to follow follows at its moment, or now.

    Raises:
        Forbidden: it is a service key that asks, or whoever made the version.
        InvalidState: this is not the version in force, nor the one that follows.
    """
    current = in_force(campaign, now_ms)
    version = next((each for each in (current, current.coming) if each is not None and each.version == number), None)
    if version is None:
        raise InvalidState(f"version {number} neither decides nor follows; read the campaign again", status_now=campaign.status)
    if actor.kind != "operator":
        raise Forbidden("a person who has logged in approves, and no service key")
    if actor.id == version.created_by:
        raise Forbidden("whoever made a version does not approve it")
    if version.approved_by is not None:
        return campaign
    agreed = msgspec.structs.replace(version, approved_by=actor.id, changed_at=now_ms)
    if version is current:
        return msgspec.structs.replace(agreed, status=campaign.status)
    if version.waits:
        agreed = msgspec.structs.replace(agreed, waits=False, effective_at=max(version.effective_at or now_ms, now_ms))
    return msgspec.structs.replace(current, status=campaign.status, coming=agreed, changed_at=now_ms)
