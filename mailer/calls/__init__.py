"""Calls to services other than mail servers: HTTP POST, and programs that the operator names."""
