"""The ways a message can leave: direct to MX, by a provider, into the local Maildir; and their health."""
