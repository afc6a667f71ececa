"""Network checks of `mailer doctor` and `mailer dkim check`; the runner does not use them."""
