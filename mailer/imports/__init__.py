"""What other relays have queued, for `mailer import`: each queue is read where it is, by its own rules."""
