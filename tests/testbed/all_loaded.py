"""All of the product, imported: what a fork server loads once."""

import gc
import importlib
import pkgutil

import mailer

for _module in pkgutil.walk_packages(mailer.__path__, "mailer."):
    if not _module.name.endswith("__main__"):
        importlib.import_module(_module.name)
# Pages that hold these objects stay shared: no fork's collector writes to them.
gc.collect()
gc.freeze()
