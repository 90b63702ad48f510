"""Privacy: the export of a member's data, the erasure of a member, and the rotation of master keys."""
