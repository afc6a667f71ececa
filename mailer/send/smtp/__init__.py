"""The SMTP client: a state machine without I/O, its asyncio shell, and a pool of reusable sessions."""
