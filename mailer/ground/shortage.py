"""What a host may run out of. No other host is at fault then, and another one would not help."""

import errno

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of sockets for want of descriptors, buffers or memory."""
