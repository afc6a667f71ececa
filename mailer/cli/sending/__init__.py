"""Programs of `mailer-send`: a single run, a runner that watches, a dry run, and what runs do beside mail."""
