"""Delivery status notifications (RFC 3464): which are due, how they are written, and how they are queued."""
