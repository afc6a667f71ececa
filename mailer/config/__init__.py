"""The configuration: its typed model, finding and loading it, its secrets, and checks of it.

`load.load` returns a `model.Config` or raises `problem.ConfigError` with all problems together. `checks` has
the reasons not to start with it, and `warnings` all else that an operator should know. `show` prints it
without its secrets.
"""
