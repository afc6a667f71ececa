"""`mailer config keys`, and the tables of keys in the configuration guide."""
