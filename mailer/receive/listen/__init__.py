"""Listening sockets, the accept loop, and the TLS certificate."""
