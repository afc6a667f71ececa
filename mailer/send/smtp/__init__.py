"""The SMTP client: a machine without I/O, its asyncio shell, and the sessions that are kept for reuse."""
