"""The receiving daemon: takes mail over SMTP, and says 250 when it is durable in the spool."""
