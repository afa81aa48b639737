"""The families of models, by name: what files and scripts look up.

A family is a module of pure functions and its config.  A new one is a row here
and its parameters in `jaxnmc.io.name_map`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from jaxnmc.errors import ConfigError, UserError
from jaxnmc.models import gpt, matmulfree
from jaxnmc.models.model import Model


@dataclasses.dataclass(frozen=True)
class Family:
  """One kind of model.

  Attributes:
    name: as it stands in files.
    config: class of its config, a frozen dataclass of JSON values.
    make: `make(config) -> fn(ops, params, inputs, state)`.
    init_params: `init_params(config, key) -> params`.
    init_state: `init_state(config, batch=()) -> state`.
  """

  name: str
  config: type
  make: Callable[..., Any]
  init_params: Callable[..., Any]
  init_state: Callable[..., Any]


FAMILIES = {
  name: Family(
    name,
    module.Config,
    module.make,
    module.init_params,
    module.init_state,
  )
  for name, module in {"matmulfree": matmulfree, "gpt": gpt}.items()
}
# What files that name no family hold: those written when there was but one.
DEFAULT = "matmulfree"


def family_of(config: Any) -> Family:
  """The family that a config is of.

  Raises:
    ConfigError: none.
  """
  for family in FAMILIES.values():
    if isinstance(config, family.config):
      return family
  raise ConfigError(
    f"found a config of type {type(config).__name__}, allowed are those of"
    f" {', '.join(FAMILIES)}"
  )


def make(config: Any) -> Callable[..., Any]:
  """The model function of a config."""
  return family_of(config).make(config)


def model(name: str, config: Any, params: Any, **more: Any) -> Model:
  """A `Model` of a config and its parameters; `more` are further fields."""
  family = family_of(config)
  return Model(
    name=name,
    config=config,
    params=params,
    fn=family.make(config),
    init_state=functools.partial(family.init_state, config),
    **more,
  )


def to_json(config: Any) -> dict[str, Any]:
  """Fields of a config, and "model" where the family is not the default."""
  name = family_of(config).name
  fields = dataclasses.asdict(config)
  # As they come back from a file, which has no tuples.
  lists = {k: _lists(v) for k, v in fields.items() if isinstance(v, tuple)}
  return ({} if name == DEFAULT else {"model": name}) | fields | lists


def _lists(value: Any) -> Any:
  return [_lists(v) for v in value] if isinstance(value, tuple) else value


def from_json(fields: Any, where: str, name: str | None = None) -> Any:
  """The config that `to_json` wrote.

  Args:
    fields: the JSON object.
    where: file name for messages.
    name: family, where the file names it elsewhere.

  Raises:
    ConfigError: another family; unknown, missing or impossible fields.
  """
  if not isinstance(fields, dict):
    raise ConfigError(
      f"{where}: field 'config' is {fields!r}, allowed is an object"
    )
  fields = dict(fields)
  name = fields.pop("model", name or DEFAULT)
  if name not in FAMILIES:
    raise ConfigError(
      f"{where}: found model {name!r}, allowed are {', '.join(FAMILIES)}; a"
      " newer jaxnmc may know it"
    )
  kind = FAMILIES[name].config
  known = {f.name for f in dataclasses.fields(kind)}
  unknown = sorted(fields.keys() - known)
  if unknown:
    raise ConfigError(
      f"{where}: unknown config fields {', '.join(unknown)}; allowed are"
      f" {', '.join(sorted(known))}"
    )
  try:
    return kind(**fields)
  except UserError as error:
    raise ConfigError(f"{where}: {error}") from error
  except (TypeError, ValueError) as error:
    raise ConfigError(f"{where}: a field has a wrong type ({error})") from error
