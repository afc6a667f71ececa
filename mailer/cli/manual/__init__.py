"""Manual pages, made of what `--help` and the configuration guide say."""
