"""Access tokens for providers: asked for, kept for all runners, renewed before they end."""
