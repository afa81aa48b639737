"""Errors raised at the boundary of jaxnmc, where a caller can mend the cause.

Every message says which file, field, site or core is meant, what was found,
what was allowed, and what to do about it. Commands turn a `UserError` into its
message and exit status 2; anything else is a bug of ours and keeps its
traceback.
"""


class UserError(ValueError):
  """Something the caller passed in cannot be used; the message says why."""


class FormatError(UserError):
  """A number format cannot hold a value: overflow, a bad width or bound."""


class ConfigError(UserError):
  """A configuration field is unknown, missing or has an impossible value."""


class CheckpointError(UserError):
  """A file or folder of weights is absent, damaged or for another model."""


class TokenError(UserError):
  """Token ids, a prompt or a tokenizer do not fit the model."""


class PlacementError(UserError):
  """A graph does not fit the cores asked for, or cannot be on the chip."""


class ChipError(UserError):
  """A checked run went over a limit of the chip while it ran."""


class PlanError(UserError):
  """A plan or quantised parameters belong to another model or plan."""


class TransformError(UserError):
  """Model code used a raw JAX transform where an `ops` one is needed."""


class MissingExtra(UserError, ImportError):
  """An optional package is absent; the message names the extra that has it."""
