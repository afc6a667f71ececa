"""Seeing and acting over HTTP, on loopback: health, metrics, the admin requests, alerts."""
