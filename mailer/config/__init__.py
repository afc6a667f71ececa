"""The configuration: its typed model, finding and loading it, its secrets, and checks of it.

`load.load` returns a `model.Config` or raises `problem.ConfigError` with all problems together. `checks` adds
warnings about a configuration that loads. `show` prints a configuration without its secrets.
"""
