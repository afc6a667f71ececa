"""The monitor: an HTTP server on loopback with health, metrics, admin requests and a status page; alerts."""
