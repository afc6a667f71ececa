"""DKIM (RFC 6376): keys, signing, and verification of signatures."""
