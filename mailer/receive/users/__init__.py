"""Who may submit: logins, local users, trusted networks, and how much each may send."""
