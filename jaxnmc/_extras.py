"""Lazy import of optional packages, with the extra's name in the error."""

import importlib
import types

from jaxnmc import errors


def need(module: str, extra: str, what: str | None = None) -> types.ModuleType:
  """Imports an optional module inside the function that needs it.

  Args:
    module: dotted name of the module, for example `"safetensors.flax"`.
    extra: the extra of jaxnmc that installs it, for example `"hf"`.
    what: what needs it, for the message, for example `"NIR export"`; the
      module itself when not given.

  Returns:
    The imported module.

  Raises:
    errors.MissingExtra: the module cannot be imported; the message says
      which extra to install.
  """
  try:
    return importlib.import_module(module)
  except ImportError as e:
    error = errors.MissingExtra(
      f"{what or module} needs 'pip install jaxnmc[{extra}]' ({e})"
    )
    error.name = module
    raise error from e
