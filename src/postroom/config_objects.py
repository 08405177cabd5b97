"""Python objects that a configuration file names as "package.module:name"."""

import importlib
import re
from typing import Any, Final

from postroom.config_values import Unreadable, guess, string

__all__ = ["imported", "reference"]

_REFERENCE: Final = re.compile(
    r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)"
)


def reference(value: Any) -> str:
    """Read the name of an object, without importing anything."""
    text = string(value)
    if _REFERENCE.fullmatch(text) is None:
        module, _, name = text.rpartition(".")
        plausible = bool(_REFERENCE.fullmatch(f"{module}:{name}")) and name != "py"
        proposal = f"{module}:{name}" if plausible else "myapp.hooks:campaign"
        raise Unreadable(
            f"{text!r} does not name an object", f'write module, colon and name, as in "{proposal}"'
        )
    return text


def imported(text: str) -> Any:
    """Return the object that a text names, having imported its module.

    Raises:
        Unreadable: there is no such module or no such object, or the import failed (then that is the cause).
    """
    module_name, _, name = reference(text).partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise Unreadable(
                f"there is no module {error.name!r} here",
                "install it for this Python, or add its folder to PYTHONPATH",
            ) from None
        raise _failed(module_name, error) from error
    except Exception as error:
        # Somebody else's code runs here and may raise anything.
        raise _failed(module_name, error) from error
    names = [each for each in dir(found) if not each.startswith("_")]
    for part in name.split("."):
        if not hasattr(found, part):
            close = guess(part, names)
            raise Unreadable(
                f"the module {module_name} has no {name!r}",
                close if close.startswith("did you mean") else "define it there",
            )
        found = getattr(found, part)
    return found


def _failed(module: str, error: Exception) -> Unreadable:
    return Unreadable(
        f"importing {module} failed ({type(error).__name__}: {error})",
        f"see to it that `import {module}` works",
    )
