"""OAuth 2.0 access tokens for providers: obtained, stored for all runners, and renewed before they expire."""
