"""Manual pages, generated from `--help` and the configuration guide."""
