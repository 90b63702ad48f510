"""Pure rules of erasures: the data to destroy, the certificate and its digest."""

import hashlib
from collections.abc import Mapping
from datetime import datetime

import msgspec

from guerdon.clock import optional_rfc3339, rfc3339, to_ms
from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.errors import Validation
from guerdon.members.models import Member
from guerdon.members.rules import EMAIL_CLAIM
from guerdon.privacy.models import CertificateView, Certified, Head, StoredCertificate, WalletProof

_canonical = msgspec.json.Encoder(order="sorted")


def inventory(member: Member, rows: Mapping[str, int]) -> dict[str, int]:
    """Return the number of items to destroy by name: those of the member's row, and `rows` of other collections."""
    own = {
        "profile": int(member.sealed is not None),
        "key": int(member.sealed is not None),
        "password": int(member.password_hash is not None),
        "address_claims": len(address_claims(member)),
    }
    return {**own, **rows}


def address_claims(member: Member) -> list[str]:
    return [claim for claim in member.claims if claim.startswith(EMAIL_CLAIM)]


def external_id_claims(member: Member) -> list[str]:
    return [claim for claim in member.claims if not claim.startswith(EMAIL_CLAIM)]


def filters_of(belongings: ErasableRows, member_id: str, member: Member | None) -> list[Document]:
    """Return the filters of a member's rows in another collection. `member` is None if the member's own row does not exist."""
    if belongings.by == "member":
        return [belongings.where(member_id)]
    return [] if member is None else [belongings.where(claim) for claim in address_claims(member)]


def digest_of(certified: Certified) -> str:
    """Return the SHA-256 over the canonical JSON of the certified data, in hexadecimal."""
    members = {name: getattr(certified, name) for name in Certified.__struct_fields__}
    return hashlib.sha256(_canonical.encode(members)).hexdigest()


def view_certificate(stored: StoredCertificate) -> CertificateView:
    """Return the wire shape of a certificate, with its digest."""
    after = {head.wallet: head for head in stored.after}
    view = CertificateView(
        member_id=stored.id,
        asked_at=rfc3339(stored.asked_at),
        asked_by=stored.asked_by,
        request_id=stored.request_id,
        completed_at=rfc3339(stored.completed_at),
        destroyed=stored.destroyed,
        external_id_until=optional_rfc3339(stored.external_id_until),
        wallets=[_proof(head, after.get(head.wallet, head)) for head in stored.before],
        sha256="",
    )
    return msgspec.structs.replace(view, sha256=digest_of(view))


def _proof(before: Head, after: Head) -> WalletProof:
    return WalletProof(before.wallet, before.seq, before.head.hex(), after.seq, after.head.hex())


def stored_certificate(view: CertificateView) -> StoredCertificate:
    """Return the stored shape of a certificate.

    Raises:
        Validation: the certificate does not match its digest.
    """
    if digest_of(view) != view.sha256:
        raise Validation.at("/sha256", f"the certificate of {view.member_id} was changed: it does not match its digest")
    return StoredCertificate(
        id=view.member_id,
        asked_at=_ms(view.asked_at),
        asked_by=view.asked_by,
        request_id=view.request_id,
        completed_at=_ms(view.completed_at),
        destroyed=view.destroyed,
        external_id_until=None if view.external_id_until is None else _ms(view.external_id_until),
        before=[Head(proof.wallet, proof.seq_before, bytes.fromhex(proof.head_before)) for proof in view.wallets],
        after=[Head(proof.wallet, proof.seq_after, bytes.fromhex(proof.head_after)) for proof in view.wallets],
    )


def _ms(time: str) -> int:
    return to_ms(msgspec.convert(time, datetime))
