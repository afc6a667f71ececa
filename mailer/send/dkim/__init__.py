"""DKIM signatures (RFC 6376): keys, what is signed, and how; and the check of other people's."""
