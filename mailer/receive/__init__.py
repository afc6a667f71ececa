"""The submission server: accepts mail over SMTP, and replies 250 when a message is durable in the spool."""
