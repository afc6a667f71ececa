"""Routes by which a message can leave: direct to MX, through a provider, or into the local Maildir."""
