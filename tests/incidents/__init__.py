"""What goes wrong on a host, staged with real programs."""
