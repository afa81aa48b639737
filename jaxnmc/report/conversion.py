"""What the conversion of a transformer to spikes cost, layer by layer.

A feed-forward neuron that should give a (the activation) sends n of T spikes,
worth n lambda / T + c.  Its error n lambda / T + c - a has four parts:

    clipping       clip(a, 0, lambda) - max(a, 0)      too large to be said
    negative       max(a, 0) + c - a                   GELU below 0, where c is
                                                       what a bias has of it
    quantisation   h_T(a) - clip(a, 0, lambda)         whole counts
    unevenness     n lambda / T - h_T(a)               spikes at wrong times

c is the mean error of a channel, 0 where there is no bias behind or no GELU.
h_T is `spike.qcfs.qcfs`; of signed counts, the same by magnitude.  Unevenness
is 0 but for ties of float32, as the drive is the same in every tick.

Attention is no approximation of softmax but takes its place, so there is one
figure of what it adds to the residual stream: the error, relative to what the
stream lacked there.  1 is as bad as adding nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.models import spike_counts, to_spikes
from jaxnmc.models.gpt_config import Config
from jaxnmc.ops.reference import gelu
from jaxnmc.report import tables
from jaxnmc.spike import qcfs

__all__ = ["layers", "parts", "show"]

_GELUS = {"gelu": "erf", "gelu_tanh": "tanh"}
_NEURONS = ("q", "k", "v", "out")
CAUSES = ("clipping", "negative", "quantisation", "unevenness", "total")


def parts(before: Config, after: Config) -> list[dict[str, str]]:
  """What became spikes and what stays float, in the order of the network.

  Args:
    before: of the model that was converted.
    after: of the spiking model.

  Returns:
    Rows {"part", "becomes", "how"}; becomes is "spikes", "float" (its input
    or output is no spike) or "gone".
  """
  attention = after.attention == "ssa"
  counted = after.mlp_ticks is not None
  rows = [("embedding", "float", "a row of a table")]
  if after.positions == "learned":
    rows.append(("positions", "float", "learned, added to the embedding"))
  elif before.positions == "learned":
    rows.append(("positions", "gone", "the memory has the order"))
  elif after.positions == "rotary":
    rows.append(("positions", "float", "rotary: q and k are turned as floats"))
  norm = {"rms": "RMSNorm", "layer": "LayerNorm"}[after.norm]
  if after.block_norms:
    rows.append((f"{norm} of each block", "float", "one value per channel"))
  rows.append(("W_q, W_k, W_v", "float", "read the norm; once a token"))
  if attention:
    signs = "-1, 0, 1" if after.signed else "0, 1"
    name = f"{after.neuron.upper()}, {after.ticks} ticks, {signs}"
    rows.append(("q, k, v, attention's output", "spikes", name))
    rows.append(("softmax", "gone", "spikes add to a memory of d x d a head"))
    rows.append(("W_o", "spikes", "reads counts of spikes"))
  else:
    rows.append(("attention", "float", "softmax over keys"))
    rows.append(("W_o", "float", "reads the mixed values"))
  act = {"swiglu": "SiLU and its product", "relu": "ReLU"}.get(
    after.mlp, "GELU"
  )
  ups = "W_gate, W_up" if after.mlp == "swiglu" else "W_up"
  rows.append((ups, "float", "reads the norm; once a token"))
  if not counted:
    rows.append((act, "float", "as it was"))
    rows.append(("W_down", "float", "reads the activation"))
  else:
    signed = after.mlp == "swiglu"
    if signed:
      rows.append((act, "float", "as it was; what follows spikes"))
    how = f"{after.mlp_ticks} ticks, a threshold each"
    what = "product of the GLU" if signed else act
    rows.append((what, "spikes", how + (", also -1" if signed else "")))
    rows.append(("W_down", "spikes", "reads counts of spikes"))
  rows += [
    (f"final {norm}", "float", "one value per channel"),
    ("head", "float", "reads the norm"),
  ]
  return [dict(zip(("part", "becomes", "how"), r, strict=True)) for r in rows]


def layers(
  before: tuple[Config, Any],
  after: tuple[Config, Any],
  ids,
  progress: Callable[[int], None] = lambda layers: None,
) -> list[dict[str, Any]]:
  """Errors of each layer, on what the converted ones before it give.

  Args:
    before: (config, params) of the model that was converted.
    after: (config, params) of `models.to_spikes.convert`.
    ids: int[B, T], text.
    progress: is told 1 after each layer.

  Returns:
    A row per layer, all figures measured on `ids`:

      layer: its number.
      attention: None where it was not converted; else `error`, root mean
        square of what the stream still lacks behind it over that of what it
        lacked in front; `rates`, spikes per neuron and tick of q, k, v, out.
      feed_forward: None where it was not converted; else the mean squares of
        `CAUSES` and of the `activation`; `error`, of what the block adds to
        the stream, relative, root mean square; `rate`, spikes per neuron and
        tick; `silent`, share of neurons that sent none.
      stream: error of the residual stream behind the layer, relative.

  Raises:
    ConfigError: `after` is no conversion of `before`.
  """
  (old, given_params), (new, mine_params) = before, after
  if (old.attention, old.mlp_ticks) == (new.attention, new.mlp_ticks):
    raise ConfigError(
      "report.conversion: both configs have the same attention and feed-forward"
      " blocks; give the model that was converted and what came out"
    )
  ids = jnp.asarray(np.asarray(ids).T, jnp.int32)
  given = to_spikes.stream(old, given_params, ids)
  mine = to_spikes.stream(new, mine_params, ids)
  measure = jax.jit(functools.partial(_layer, ids), static_argnums=(0, 1))
  rows = []
  pairs = zip(given_params["layers"], mine_params["layers"], strict=True)
  for index, (p, q) in enumerate(pairs):
    figures, given, mine = measure(
      *(old.layer(index), new.layer(index), p, q, given, mine)
    )
    found = jax.tree.map(float, jax.device_get(figures))
    rows.append({"layer": index, **found})
    progress(1)
  return rows


def _layer(ids, old: Config, new: Config, p, q, given, mine):
  """(figures of one layer, the stream of both models behind it)."""
  wanted = to_spikes.values(old, p, given, ids)
  got = to_spikes.values(new, q, mine, ids)
  found: dict[str, Any] = {"attention": None, "feed_forward": None}
  if new.attention != old.attention:
    found["attention"] = {
      "error": _relative(got["mid"] - wanted["mid"], wanted["mid"] - mine),
      "rates": _rates(new, q, got),
    }
  if new.mlp_ticks != old.mlp_ticks:
    # The same layer with its feed-forward block as it was.
    half = dataclasses.replace(new, mlp_ticks=old.mlp_ticks)
    held = to_spikes.values(half, {**q, "mlp": p["mlp"]}, mine, ids)
    site = {"swiglu": "glu", "relu": "relu"}.get(old.mlp, "gelu")
    figures = _counted(
      new, q["mlp"]["fire"], held[f"mlp.{site}"], got["mlp.counts"]
    )
    off = _relative(got["out"] - held["out"], held["out"] - got["mid"])
    found["feed_forward"] = {**figures, "error": off}
  found["stream"] = _relative(got["out"] - wanted["out"], wanted["out"])
  return found, wanted["out"], got["out"]


def _relative(error, value) -> jax.Array:
  """Root mean square of an error over that of a value."""
  return jnp.sqrt(jnp.mean(error**2) / jnp.mean(value**2))


def _rates(config: Config, p, got) -> dict[str, jax.Array]:
  """Spikes per neuron and tick of one attention."""
  counts = spike_counts.counts_of(config, p, got)
  return {name: jnp.mean(counts[name]) / config.ticks for name in _NEURONS}


def _counted(config: Config, table, a, count) -> dict[str, jax.Array]:
  """Mean squares of the errors of a table of thresholds.

  Args:
    config: of the spiking model.
    table: thresholds, float[T, n].
    a: the activation, [..., n].
    count: spikes, [..., n].
  """
  ticks = config.mlp_ticks or 0
  signed = config.mlp == "swiglu"
  # The last threshold stands for (T - 1/2) of T steps.
  last = table[-1]
  if config.mlp in _GELUS:
    last = gelu(last, _GELUS[config.mlp])
  top = last * ticks / (ticks - 0.5)
  positive = jnp.maximum(a, 0)
  size, sent = (jnp.abs(a), jnp.abs(count)) if signed else (positive, count)
  held = jnp.minimum(size, top)
  whole = top * jnp.clip(jnp.floor(size * ticks / top + 0.5) / ticks, 0, 1)
  sent = top * sent / ticks
  errors = qcfs.Errors(held - size, whole - held, sent - whole)
  found = errors.mean_squares()
  value = jnp.sign(count) * sent
  offset = jnp.zeros(())
  if config.bias and config.mlp in _GELUS:
    offset = jnp.mean(a - value, axis=tuple(range(a.ndim - 1)))
    value = value + offset
  negative = jnp.zeros_like(a) if signed else positive + offset - a
  return found | {
    "negative": jnp.mean(negative**2),
    "total": jnp.mean((value - a) ** 2),
    "activation": jnp.mean(a**2),
    "rate": jnp.mean(jnp.abs(count)) / ticks,
    "silent": jnp.mean(count == 0),
  }


def show(people, data: dict[str, Any]) -> None:
  """Prints the tables.

  Args:
    people: a console.
    data: {"parts": of `parts`, "layers": of `layers`}.
  """
  rows = [tuple(row.values()) for row in data["parts"]]
  people.print(tables.table("What became spikes", ("part", "is", "how"), rows))
  share = lambda x: f"{100 * x:.2f}"
  found = [r for r in data["layers"] if r["feed_forward"]]
  if found:
    body = []
    for row in found:
      f = row["feed_forward"]
      whole = f["activation"]
      errors = [share((f[cause] / whole) ** 0.5) for cause in CAUSES]
      body.append(
        (row["layer"], *errors, share(f["error"]), f"{f['rate']:.3f}")
      )
    people.print(
      tables.table(
        "Feed-forward: errors of the activation, its root mean square = 100"
        " (measured)",
        (
          *("layer", ">clip", ">neg.", ">quant.", ">uneven", ">total"),
          *(">added, %", ">rate"),
        ),
        body,
      )
    )
  found = [r for r in data["layers"] if r["attention"]]
  if found:
    body = [
      (
        row["layer"],
        share(row["attention"]["error"]),
        *(f"{row['attention']['rates'][name]:.3f}" for name in _NEURONS),
      )
      for row in found
    ]
    people.print(
      tables.table(
        "Attention: error of what it adds (100: as adding nothing), spikes per"
        " neuron and tick (measured)",
        ("layer", ">added, %", *(f">{name}" for name in _NEURONS)),
        body,
      )
    )
  last = data["layers"][-1]["stream"]
  people.print(
    f"residual stream behind the last layer: {share(last)} % off (measured)",
    markup=False,
  )
