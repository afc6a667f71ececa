"""What `mailer doctor` and `mailer dkim check` look at in the network. A run of mail uses none of it."""
