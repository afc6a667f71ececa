"""Authentication and rate limits: logins, local users, trusted networks, and how much each may send."""
