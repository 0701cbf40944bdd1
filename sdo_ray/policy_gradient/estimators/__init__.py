"""The published policy-gradient estimators, with their published defaults. Importing this registers all."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
