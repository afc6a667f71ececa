"""The programs of `mailer serve`: what keeps it from starting, its parts, its reloads and its end."""
