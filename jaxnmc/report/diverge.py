"""Where two interpreters of one model part: the first site that differs.

A site's value is compared in real units, where integers divided by a power of
two are exact in float64.  Sites are in the order in which the model computes
them, so the first that differs is where to look: what follows inherits it.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.engines import host
from jaxnmc.errors import ConfigError
from jaxnmc.numerics.fx import Fx
from jaxnmc.ops import transform
from jaxnmc.ops.execute import executable, execute
from jaxnmc.ops.memory import READ
from jaxnmc.ops.record import record

NAMES = ("float", "fake_quant", "fixed", "graph")


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
  """How one site compares.

  Attributes:
    path: of the site.
    values: numbers that were compared.
    differ: how many lie further apart than allowed.
    largest: largest difference, in real units.
    token: token of the first one that differs, or None.
    feature: its feature, or None.
    found: both values there, in real units.
    code: size of a code of the site, in real units; None: it is in float in
      both.
  """

  path: str
  values: int
  differ: int
  largest: float
  token: int | None
  feature: int | None
  found: tuple[float, float] | None
  code: float | None

  def plain(self) -> dict[str, Any]:
    """For JSON."""
    return dataclasses.asdict(self)


def compare(
  ours: Mapping[str, Any], theirs: Mapping[str, Any], codes: float = 0.0
) -> list[Site]:
  """Every site that both have, in our order.

  Args:
    ours: path -> `Fx` or float array [T, ..., n].
    theirs: the same of another interpreter.
    codes: how far values may lie apart, in codes of the site (of real units
      where both are in float).

  Raises:
    ConfigError: no site in common, a site of two shapes, or `codes` < 0.
  """
  if not codes >= 0:
    raise ConfigError(f"the tolerance must be 0 codes or more; found {codes}")
  paths = [path for path in ours if path in theirs]
  if not paths:
    raise ConfigError(
      "the two have no site in common; they must interpret the same model"
    )
  return [_site(path, ours[path], theirs[path], codes) for path in paths]


def first(sites: list[Site]) -> Site | None:
  """The first site that differs, or None."""
  return next((site for site in sites if site.differ), None)


def _real(value) -> np.ndarray:
  """A value in real units, float64."""
  if isinstance(value, Fx):
    return np.ldexp(np.asarray(value.q, np.float64), -value.frac)
  return np.asarray(value, np.float64)


def _site(path: str, mine, other, codes: float) -> Site:
  a, b = _real(mine), _real(other)
  if a.shape != b.shape:
    raise ConfigError(
      f"{path}: found shapes {list(a.shape)} and {list(b.shape)}; the two must"
      " interpret the same model on the same ids"
    )
  fracs = [x.frac for x in (mine, other) if isinstance(x, Fx)]
  code = 2.0 ** -min(fracs) if fracs else None
  with np.errstate(invalid="ignore"):
    apart = np.abs(a - b)
  # What is no number in one and in the other differs, too.
  bad = ~(apart <= codes * (1.0 if code is None else code)) & ~(a == b)
  token = feature = found = None
  if bad.any():
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    token, feature = at[0], at[-1]
    found = (float(a[at]), float(b[at]))
  return Site(
    path,
    a.size,
    int(bad.sum()),
    float(apart.max(initial=0.0)),
    token,
    feature,
    found,
    code,
  )


def values(
  fn,
  name: str,
  params,
  ids,
  plan=None,
  qparams=None,
  float64: bool = False,
) -> dict[str, Any]:
  """The value of every site, in the order in which the model computes them.

  Args:
    fn: model function.
    name: one of `NAMES`; "graph" is what `loihi` runs: the recorded network.
    params: float parameters.
    ids: token ids, int[T].
    plan: number formats; not needed by "float".
    qparams: integer parameters; needed by "fixed" and "graph".
    float64: compute floats in float64.

  Returns:
    path -> `Fx` of [T, ..., n], or float[T, ..., n].

  Raises:
    ConfigError: no such interpreter, or no plan for one that needs it.
  """
  if name not in NAMES:
    raise ConfigError(
      f"no interpreter is called {name!r}; known are {', '.join(NAMES)}"
    )
  if name != "float" and plan is None:
    raise ConfigError(f"{name} needs a plan: choose formats first")
  ids = np.asarray(ids, np.int32)
  if name == "graph":
    return _of_graph(fn, plan, qparams, ids)
  run = {
    "float": lambda: transform.reference(fn, taps=True),
    "fake_quant": lambda: transform.fake_quant(fn, plan, taps=True),
    "fixed": lambda: transform.fixed(fn, plan, taps=True),
  }[name]()
  wide = float64 and name != "fixed"
  with jax.enable_x64(True) if wide else contextlib.nullcontext():
    tree = params
    if name == "fixed":
      tree = qparams
    elif wide:
      widen = lambda x: (
        jnp.asarray(x, jnp.float64)
        if jnp.issubdtype(x.dtype, jnp.floating)
        else x
      )
      tree = jax.tree.map(widen, params)
    order: list[str] = []

    def call(tree, ids):
      found = run(tree, {"ids": ids}, None)[2]
      order.extend(found)  # a compiled function sorts its results by name
      return found

    found = jax.device_get(jax.jit(call)(tree, ids))
  return {path: found[path] for path in order}


def _of_graph(fn, plan, qparams, ids: np.ndarray) -> dict[str, Any]:
  """Sites of the recorded network, evaluated as the functional engine does."""
  graph = record(fn, plan, qparams)
  exe = executable(graph)
  rows = host.rows(graph, host.tables(graph), ids, 0)
  zeros = {
    old: jnp.zeros(graph.nodes[old].width, jnp.int32) for old in graph.bind
  }
  every = lambda run, found, extra: dict(found)
  extras = [np.zeros(len(run.layers), np.int32) for run in exe.runs]

  def call(numbers, rows):
    return execute(exe, numbers, rows, zeros, every, extras)[2]

  tapped = jax.device_get(jax.jit(call)(exe.load(), rows))
  codes = dict(jax.device_get(rows))
  for run, found in zip(exe.runs, tapped, strict=True):
    for local, stacked in found.items():
      for n, layer in enumerate(run.layers):
        codes[layer.nodes[local]] = stacked[n]
  result = {}
  sites = {node.site for node in graph.nodes}
  for node in graph.nodes:
    path = node.site
    if path is not None and path in plan.formats and node.id in codes:
      fmt, found = plan.formats[path], codes[node.id]
      if path + READ in sites:
        found = found[-1]  # a memory: other interpreters keep its last state
      result[path] = Fx(found, frac=fmt.frac, low=fmt.low, high=fmt.high)
  return result
