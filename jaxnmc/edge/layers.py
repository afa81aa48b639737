"""Spiking layers under the tutorial's names: spikes in, spikes out.

A layer is a description; `init(key)` draws its parameters, and calling it with
parameters and spikes [time, batch, tokens, features] of 0 and 1 gives spikes of
the same axes.  Each tick of every token charges a leaky neuron from rest:

    v <- decay v + W s        fires at v >= threshold, which is subtracted

With int8 weights all of it is int32: decay is (4096 - d) / 4096 with d =
floor(4096 (1 - decay) + 1/2), 3686 / 4096 for 0.9, cut toward zero
(`jaxnmc.spike.neurons`).  With float weights the same trains by surrogates.

What differs from the tutorial: attention has no softmax and is causal
(`jaxnmc.spike.ssa`; its threshold grows with the tokens seen); ticks are an
axis for precision and never mix tokens; weights are exact int8, zero points and
scales do not exist; there is no residual and no norm, as in its listing, so
that deep stacks of random layers fall silent or saturate.
"""

import dataclasses
from typing import Any

import jax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike import checks, neurons, ssa

__all__ = [
  "SpikingFeedForward",
  "SpikingLinear",
  "SpikingMultiHeadAttention",
  "SpikingTransformerBlock",
]

_TOP = 127  # of an int8 weight, symmetric
# Of what attention reads: 1/4, in units of 2^-8 (docs/spiking.md).
_FRAC, _READ = 8, 64


@dataclasses.dataclass(frozen=True)
class SpikingLinear:
  """A matrix of int8 synapses and leaky neurons behind it.

  Attributes:
    in_features: of the spikes that come.
    out_features: neurons.
    threshold: in units of a weight.
    decay: what a tick leaves of a potential, 0 to 1 (exclusive).
    ticks: of the time axis.

  Raises:
    ConfigError: a field that cannot be.
  """

  in_features: int
  out_features: int
  threshold: int = 128
  decay: float = 0.9
  ticks: int = 4

  def __post_init__(self):
    for field in ("in_features", "out_features", "threshold", "ticks"):
      checks.whole("SpikingLinear", field, getattr(self, field), 1)
    if not 0 < self.decay < 1:
      raise ConfigError(
        f"SpikingLinear: decay is {self.decay!r}; allowed is the share of a"
        " potential that a tick leaves, between 0 and 1"
      )

  @property
  def neuron(self) -> neurons.LIF:
    """Of one output."""
    return neurons.LIF(
      tau=1 / (1 - self.decay),
      threshold=float(self.threshold),
      decay_input=False,
    )

  def init(self, key: jax.Array, dtype: Any = jnp.int8) -> dict:
    """Random weights, {"weight": int8[out, in]}, or of a float dtype.

    A normal distribution so wide that a fifth of the inputs, firing together,
    give a drive of about one threshold.
    """
    shape = (self.out_features, self.in_features)
    spread = self.threshold * (5 / self.in_features) ** 0.5
    weight = jnp.clip(spread * jax.random.normal(key, shape), -_TOP, _TOP)
    if jnp.issubdtype(dtype, jnp.integer):
      weight = jnp.round(weight)
    return {"weight": weight.astype(dtype)}

  def __call__(self, params, spikes) -> jax.Array:
    """Spikes [time, batch, tokens, out], int32, or float of float weights.

    Args:
      params: of `init`.
      spikes: [time, batch, tokens, in] of 0 and 1.

    Raises:
      ConfigError: other axes, or another number of ticks or features.
      FormatError: potentials that could leave 32 bits.
    """
    spikes = _spikes("SpikingLinear", spikes, self.ticks, self.in_features)
    weight = params["weight"]
    whole = jnp.issubdtype(weight.dtype, jnp.integer)
    dtype = jnp.int32 if whole else weight.dtype
    drive = spikes.astype(dtype) @ weight.astype(dtype).T
    charge = self.ticks * self.in_features * _TOP if whole else None
    theta = self.threshold if whole else float(self.threshold)
    _, out = neurons.run(self.neuron, drive, threshold=theta, charge=charge)
    return out


def _spikes(owner: str, spikes, ticks: int, features: int) -> jax.Array:
  spikes = jnp.asarray(spikes)
  if spikes.ndim != 4 or (spikes.shape[0], spikes.shape[-1]) != (
    ticks,
    features,
  ):
    raise ConfigError(
      f"{owner}: found spikes of shape {list(spikes.shape)}; allowed are [time,"
      f" batch, tokens, features] with {ticks} ticks and {features} features"
    )
  return spikes


@dataclasses.dataclass(frozen=True)
class SpikingMultiHeadAttention:
  """Causal spiking self-attention between four `SpikingLinear`.

  Attributes:
    embed_dim: features in and out.
    num_heads: heads, which part them equally.
    threshold: of the four.
    decay: of the four.
    ticks: of the time axis.
    context: most tokens.

  Raises:
    ConfigError: a field that cannot be.
  """

  embed_dim: int
  num_heads: int
  threshold: int = 128
  decay: float = 0.9
  ticks: int = 4
  context: int = 64

  def __post_init__(self):
    for field in ("embed_dim", "num_heads"):
      checks.whole("SpikingMultiHeadAttention", field, getattr(self, field), 1)
    if self.embed_dim % self.num_heads:
      raise ConfigError(
        f"SpikingMultiHeadAttention: embed_dim ({self.embed_dim}) must be"
        f" divisible by num_heads ({self.num_heads})"
      )

  @property
  def projection(self) -> SpikingLinear:
    """Any of the four."""
    return SpikingLinear(
      *(self.embed_dim, self.embed_dim, self.threshold, self.decay),
      self.ticks,
    )

  def init(self, key: jax.Array, dtype: Any = jnp.int8) -> dict:
    """{"q", "k", "v", "o"}: parameters of a `SpikingLinear` each."""
    keys = jax.random.split(key, 4)
    return {n: self.projection.init(k, dtype) for n, k in zip("qkvo", keys)}

  def __call__(self, params, spikes) -> jax.Array:
    """Spikes [time, batch, tokens, embed_dim].

    Args:
      params: of `init`.
      spikes: [time, batch, tokens, embed_dim] of 0 and 1.

    Raises: as `SpikingLinear`; TokenError: more tokens than the context.
    """
    size = self.embed_dim // self.num_heads
    heads = lambda x: jnp.swapaxes(
      x.reshape(*x.shape[:-1], self.num_heads, size), -2, -3
    )
    q, k, v = (heads(self.projection(params[n], spikes)) for n in "qkv")
    config = ssa.SSA(head_size=size, context=self.context, frac=_FRAC)
    theta = _READ
    if not jnp.issubdtype(q.dtype, jnp.integer):
      theta = _READ / 2**_FRAC
    mixed, _ = ssa.attend(config, q, k, v, theta)
    joined = jnp.swapaxes(mixed, -2, -3)
    return self.projection(params["o"], joined.reshape(spikes.shape))


@dataclasses.dataclass(frozen=True)
class SpikingFeedForward:
  """Two `SpikingLinear`, one behind the other.

  Attributes:
    hidden_dim: features in and out.
    intermediate_dim: neurons between.
    threshold: of both.
    decay: of both.
    ticks: of the time axis.
  """

  hidden_dim: int
  intermediate_dim: int
  threshold: int = 128
  decay: float = 0.9
  ticks: int = 4

  @property
  def layers(self) -> tuple[SpikingLinear, SpikingLinear]:
    """(up, down)."""
    more = (self.threshold, self.decay, self.ticks)
    return (
      SpikingLinear(self.hidden_dim, self.intermediate_dim, *more),
      SpikingLinear(self.intermediate_dim, self.hidden_dim, *more),
    )

  def init(self, key: jax.Array, dtype: Any = jnp.int8) -> dict:
    """{"up", "down"}: parameters of a `SpikingLinear` each."""
    up, down = jax.random.split(key)
    first, second = self.layers
    return {"up": first.init(up, dtype), "down": second.init(down, dtype)}

  def __call__(self, params, spikes) -> jax.Array:
    """Spikes [time, batch, tokens, hidden_dim]; errors as `SpikingLinear`."""
    first, second = self.layers
    return second(params["down"], first(params["up"], spikes))


# By identity: a config need not be hashable.
@dataclasses.dataclass(frozen=True, eq=False)
class SpikingTransformerBlock:
  """Attention, then the feed-forward block, as the tutorial's listing has it.

  Attributes:
    config: has `hidden_size`, `num_attention_heads` (or `num_heads`), and
      `intermediate_size` (or `mlp_size`, as `gpt.Config`).
    threshold: of all neurons but those that read attention.
    decay: of the same.
    ticks: of the time axis.
    context: most tokens.
  """

  config: Any
  threshold: int = 128
  decay: float = 0.9
  ticks: int = 4
  context: int = 64

  def _field(self, *names: str) -> int:
    for name in names:
      value = getattr(self.config, name, None)
      if value is not None:
        return value
    raise ConfigError(
      f"SpikingTransformerBlock: the config has no {' or '.join(names)}"
    )

  @property
  def attn(self) -> SpikingMultiHeadAttention:
    """Its attention."""
    return SpikingMultiHeadAttention(
      self._field("hidden_size"),
      self._field("num_attention_heads", "num_heads"),
      *(self.threshold, self.decay, self.ticks, self.context),
    )

  @property
  def ffn(self) -> SpikingFeedForward:
    """Its feed-forward block."""
    return SpikingFeedForward(
      self._field("hidden_size"),
      self._field("intermediate_size", "mlp_size"),
      *(self.threshold, self.decay, self.ticks),
    )

  def init(self, key: jax.Array, dtype: Any = jnp.int8) -> dict:
    """{"attn", "ffn"}."""
    attn, ffn = jax.random.split(key)
    return {
      "attn": self.attn.init(attn, dtype),
      "ffn": self.ffn.init(ffn, dtype),
    }

  def __call__(self, params, spikes) -> jax.Array:
    """Spikes [time, batch, tokens, hidden]; errors as its two parts."""
    return self.ffn(params["ffn"], self.attn(params["attn"], spikes))
