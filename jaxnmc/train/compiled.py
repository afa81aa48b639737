"""A jitted function that compiles in the open: how often, how long, why."""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxnmc.train import products

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Compilation:
  """One program that was made.

  Attributes:
    reason: what made it necessary.
    seconds: to trace and compile, measured.
    flops: of its matrix products in one call (`products.flops`).
  """

  reason: str
  seconds: float
  flops: int | None


# Path of each argument leaf -> its type, like "float32[3,4]".
_Key = tuple[tuple[Any, str], ...]


class Compiled:
  """Calls a jitted function through programs that it has compiled itself.

  What JAX does silently, a compilation in the middle of a run, is counted here
  and said in the log. Types and shapes of the arguments decide; where they lie
  does not, because the function must say that itself (`in_shardings`): JAX
  refuses an array that was put elsewhere.

  Attributes:
    compilations: one entry per program, the first in front.
  """

  def __init__(self, function: Any) -> None:
    """Takes what `jax.jit` returned."""
    self._function = function
    self._programs: dict[_Key, Callable] = {}
    self.compilations: list[Compilation] = []

  def __call__(self, *args):
    """Calls the function, compiled before if need be."""
    return self.prepare(*args)(*args)

  def prepare(self, *args) -> Callable:
    """The program for such arguments; makes it if there is none."""
    leaves = jax.tree_util.tree_leaves_with_path(args)
    # Of most calls this dictionary look-up is all.
    key = tuple((path, _type(x)) for path, x in leaves)
    if key not in self._programs:
      self._programs[key] = self._compile(key, args)
    return self._programs[key]

  def _compile(self, key: _Key, args) -> Callable:
    reason = self._reason(key)
    started = time.perf_counter()
    traced = self._function.trace(*args)
    program = traced.lower().compile()
    seconds = time.perf_counter() - started
    flops = products.flops(traced.jaxpr)
    self.compilations.append(Compilation(reason, seconds, flops))
    if self._programs:
      _log.warning("compiled again after %.1f s: %s", seconds, reason)
    return program

  def _reason(self, key: _Key) -> str:
    """In what the arguments differ from those of the last program."""
    if not self._programs:
      return "first call"
    old, new = dict(list(self._programs)[-1]), dict(key)
    found = [
      f"argument {jax.tree_util.keystr(path)}:"
      f" was {old.get(path, 'absent')}, is {new.get(path, 'absent')}"
      for path in {**old, **new}
      if old.get(path) != new.get(path)
    ]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _type(x: Any) -> str:
  aval = jax.typeof(x)
  return f"{aval.dtype}{list(aval.shape)}"
