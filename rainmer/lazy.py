"""Names that a package offers without importing, until they are used, the modules that define them.

A help text needs no torch: packages whose roots import nothing let commands parse first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["lazy_names"]


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Make the `__getattr__` of a package.

    Args:
        package: Name of the package.
        modules: The full name of each module that defines something, and its names, with spaces
            between them. A name that a module of the package itself has cannot be offered: once
            imported, the module would replace it.

    Example:
        >>> lazy_names("rainmer", {"rainmer.stage.rules": "InputRules"})("InputRules").__name__
        'InputRules'
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    return find
