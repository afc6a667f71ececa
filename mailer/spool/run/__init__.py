"""What moves messages: a runner's claims and sweeps, notifications, the archive, the operator's actions."""
