"""The configuration: its typed model, how it is found and read, its secrets, and what is wrong with it.

`load.load` gives a `model.Config` or raises `problem.ConfigError` with every problem at once; `checks` says
what the operator should hear about one that loads; `show` prints it without its secrets.
"""
