"""A neuron of your own: one pure function over `ops`.

    fn(ops, params, state, inputs) -> (state, message)

`params` and `state` are dicts by name, `inputs` a tuple, one per port.  The
function is written down once when the neuron is made, as instructions of a
core; what a core cannot do is refused there.  Sites round and saturate, all
else is exact, with ranges worked out beforehand: a step cannot overflow while
its inputs are in the formats of their ports.
"""

import dataclasses
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.neurons import checks
from jaxnmc.errors import ConfigError, UserError
from jaxnmc.numerics.formats import Format, round_to
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.weights import QVector
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.graph import ELEMENTWISE
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.record import GraphAlu
from jaxnmc.ops.reference import Reference
from jaxnmc.ops.stores import IntStore

__all__ = ["Defined", "define"]

_DIVISION = (
  "a core has no division; multiply by an ops.const that holds the inverse, or"
  " use ops.shift"
)


@dataclasses.dataclass(frozen=True)
class _Formats:
  """What the interpreter asks a plan for."""

  owner: str
  formats: Mapping[str, Format]
  table: SigmoidTable = dataclasses.field(default_factory=SigmoidTable)

  def format(self, path: str) -> Format:
    if path not in self.formats:
      raise ConfigError(
        f"there is no format for {path!r}; formats has"
        f" {', '.join(sorted(self.formats))}"
      )
    return self.formats[path]


@dataclasses.dataclass(frozen=True, eq=False)
class Defined:
  """A neuron made by `define`.

  Attributes:
    name: of its function.
    fn: the function.
    ports: names of its inputs.
    states: names of its state words.
    formats: name -> number format.
    values: parameter -> its real value, a number or one per neuron.
    codes: parameter -> int32[1 or n], the value in its format.
    sends: the largest |message| code.
    takes: the largest |input| code that every port holds.
    frac: fraction bits of the message.
    instructions: what a core executes per step, in order.
  """

  name: str
  fn: Callable
  ports: tuple[str, ...]
  states: tuple[str, ...]
  formats: Mapping[str, Format]
  values: Mapping[str, Any]
  codes: Mapping[str, np.ndarray]
  sends: int = 0
  takes: int = 0
  frac: int = 0
  instructions: tuple[str, ...] = ()

  def init(self, n: int) -> dict[str, jax.Array]:
    """State of n neurons: zeros, int32[n] by name.

    Raises:
      ConfigError: n is no population, or not the length of a parameter.
    """
    limit = checks.Limit(1, 2**31 - 1, "at least one neuron")
    checks.whole(self.name, "n", n, limit)
    for name, q in self.codes.items():
      if len(q) not in (1, n):
        raise ConfigError(
          f"{self.name}: {name} has {len(q)} values, the population {n}"
          " neurons; give one value, or one per neuron"
        )
    return {name: jnp.zeros(n, jnp.int32) for name in self.states}

  def step(self, state: Mapping[str, jax.Array], inputs):
    """One time step in integers.

    Args:
      state: codes by name, int32[n].
      inputs: codes by port, a tuple of int32[n].

    Returns:
      (state, message int32[n]).

    Raises:
      ConfigError: inputs of another number, type or shape.
    """
    inputs = self._inputs(state, inputs)
    ops = Quantized(_Formats(self.name, self.formats), IntAlu(), IntStore())
    fresh, message = _call(self, ops, state, inputs)
    n = inputs[0].shape
    whole = lambda x: jnp.broadcast_to(x.q.astype(jnp.int32), n)
    return {k: whole(x) for k, x in fresh.items()}, whole(message)

  def float_step(self, state: Mapping[str, Any], inputs):
    """One time step in float, without formats: what the integers approximate.

    Args:
      state: real values by name, float[n].
      inputs: real values by port, a tuple of float[n].

    Returns:
      (state, message float[n]).  `ops.compare` has no gradient.
    """
    params = {name: jnp.asarray(v, float) for name, v in self.values.items()}
    return self.fn(Reference(), params, dict(state), tuple(inputs))

  def overflows(self, state, inputs) -> jax.Array:
    """True where an input is outside the format of its port: bool[n]."""
    inputs = self._inputs(state, inputs)
    bad = jnp.zeros(inputs[0].shape, bool)
    for port, x in zip(self.ports, inputs):
      fmt = self.formats[port]
      bad = bad | (x > fmt.high) | (x < fmt.low)
    return bad

  def _inputs(self, state, inputs) -> list[jax.Array]:
    return checks.ports(self, inputs, next(iter(state.values()), None))


def define(
  fn: Callable,
  *,
  formats: Mapping[str, Format],
  ports: Sequence[str] = ("a_in",),
  state: Sequence[str] = (),
  params: Mapping[str, Any] | None = None,
) -> Defined:
  """Makes a neuron of a function.

  Args:
    fn: `fn(ops, params, state, inputs) -> (state, message)`, pure, of the
      element-wise operations, names and parameters of docs/ops.md.  What it
      returns as a state must be a site of the same name.
    formats: number format of every port, state, parameter and site.
    ports: names of the inputs.
    state: names of the state words.
    params: name -> real value, one or one per neuron; `ops.const(name,
      params[name])` in the function.

  Returns:
    The neuron: `init`, `step`, `overflows` as stock neurons have them, and
    `float_step`.

  Raises:
    ConfigError: the function does what a core cannot (float arithmetic,
      division, synapses, JAX functions), returns something else, or a
      parameter does not fit its format.
  """
  name = getattr(fn, "__name__", "neuron")
  if not ports:
    raise ConfigError(f"neuron {name}: there are no ports; give one at least")
  try:
    codes = {k: _codes(k, v, formats.get(k)) for k, v in (params or {}).items()}
    for k in (*ports, *state):
      _Formats(name, formats).format(k)
  except UserError as error:
    raise ConfigError(f"neuron {name}: {error}") from None
  made = Defined(
    *(name, fn, tuple(ports), tuple(state), dict(formats)),
    *(dict(params or {}), codes),
  )
  return _written_down(made)


def _codes(name: str, value, fmt: Format | None) -> np.ndarray:
  """A parameter in its format; nothing is clipped."""
  if fmt is None:
    raise ConfigError(f"parameter {name} has no format; add it to formats")
  real = np.atleast_1d(np.asarray(value, np.float64))
  if real.ndim != 1 or not np.isfinite(real).all():
    raise ConfigError(
      f"parameter {name} is {value!r}; allowed is a finite number, or a list"
      " of one per neuron"
    )
  scaled = np.floor(real * 2.0**fmt.frac + 0.5)
  if (scaled > fmt.high).any() or (scaled < fmt.low).any():
    raise ConfigError(
      f"parameter {name} is {value!r}; its format {fmt} holds"
      f" {fmt.low * 2.0**-fmt.frac:g} to {fmt.high * 2.0**-fmt.frac:g}"
    )
  return round_to(real, fmt).astype(np.int32)


def _call(neuron: Defined, ops, state: Mapping[str, Any], inputs):
  """The function on codes: ({name: Fx}, Fx)."""

  def value(name: str, q) -> Fx:
    fmt = neuron.formats[name]
    return Fx(q, frac=fmt.frac, low=fmt.low, high=fmt.high)

  params = {}
  for name, q in neuron.codes.items():
    fmt = neuron.formats[name]
    params[name] = QVector(q, frac=fmt.frac, low=fmt.low, high=fmt.high)
  ports = tuple(value(n, q) for n, q in zip(neuron.ports, inputs))
  state = {n: value(n, q) for n, q in state.items()}
  return neuron.fn(ops, params, state, ports)


def _written_down(neuron: Defined) -> Defined:
  """Runs the function once on symbols and reads off what it does."""
  alu = GraphAlu()
  ops = Quantized(_Formats(neuron.name, neuron.formats), alu, IntStore())
  symbol = lambda: alu.emit("prev", width=1)
  state = {name: symbol() for name in neuron.states}
  inputs = [symbol() for _ in neuron.ports]
  try:
    result = _call(neuron, ops, state, inputs)
  except Exception as error:
    raise ConfigError(
      f"neuron {neuron.name}{_place(neuron.fn, error)}: {_reason(error)}"
    ) from error
  fresh, message = _checked_result(neuron, result)
  done = tuple(n.op for n in alu.nodes if n.op not in ("prev", "const"))
  wrong = sorted({op for op in done if op not in ELEMENTWISE})
  if wrong:
    raise ConfigError(
      f"neuron {neuron.name}: {wrong[0]} is the work of synapses, not of one"
      " neuron; use element-wise operations, and connections between"
      " populations"
    )
  for name, x in fresh.items():
    fmt = neuron.formats[name]
    if (x.frac, x.low, x.high) != (fmt.frac, fmt.low, fmt.high):
      raise ConfigError(
        f"neuron {neuron.name}: the new state {name} is {x.label}, its format"
        f" is {fmt}; end with ops.site({name!r}, ...)"
      )
  return dataclasses.replace(
    neuron,
    sends=message.bound,
    takes=min((neuron.formats[p].high for p in neuron.ports), default=0),
    frac=message.frac,
    instructions=done,
  )


def _checked_result(neuron: Defined, result) -> tuple[dict[str, Fx], Fx]:
  """(state, message) if that is what the function returned."""
  pair = result if isinstance(result, tuple) else ()
  fresh, message = pair if len(pair) == 2 else ({}, None)
  if (
    not isinstance(message, Fx)
    or not isinstance(fresh, dict)
    or set(fresh) != set(neuron.states)
  ):
    names = ", ".join(neuron.states) or "no names"
    raise ConfigError(
      f"neuron {neuron.name}: it must return (state, message), state a dict of"
      f" {names}, message a value of ops; found {_shape(result)}"
    )
  for name, x in fresh.items():
    if not isinstance(x, Fx):
      raise ConfigError(
        f"neuron {neuron.name}: the new state {name} is {type(x).__name__};"
        " allowed is a value of ops"
      )
  return fresh, message


def _shape(result) -> str:
  if isinstance(result, tuple):
    return f"({', '.join(_shape(x) for x in result)})"
  if isinstance(result, dict):
    return f"a dict of {', '.join(map(str, result)) or 'nothing'}"
  return type(result).__name__


def _place(fn: Callable, error: Exception) -> str:
  """Line of the function in which the error was."""
  code = getattr(fn, "__code__", None)
  frames = traceback.extract_tb(error.__traceback__)
  mine = [f for f in frames if code and f.filename == code.co_filename]
  if not mine:
    return ""
  text = f" ({mine[-1].line})" if mine[-1].line else ""
  return f", line {mine[-1].lineno}{text}"


def _reason(error: Exception) -> str:
  """The error in terms of a core."""
  if isinstance(error, UserError):
    return str(error)
  if isinstance(error, TypeError) and " /" in str(error):
    return _DIVISION
  return (
    f"{type(error).__name__}: {str(error).splitlines()[0]}; a neuron computes"
    " with ops.* on its own values: no Python or JAX arithmetic, no float"
  )
