"""Spike-driven self-attention (SDSA): a gate per channel in place of scores.

    g_i = SN(sum_(j <= i) k_j v_j)        y_i = q_i g_i

element by element (Yao et al. 2023, "Spike-driven Transformer", arXiv
2307.01694, where the sum is over all tokens).  Masks and additions only; the
state is one count per channel and tick.  The neuron's time is the tick, not
the token, and it starts from rest for each.
"""

import jax
from jax import numpy as jnp

from jaxnmc.errors import ConfigError
from jaxnmc.spike import checks
from jaxnmc.spike.ssa import (
  SSA,
  SSAState,
  check_state,
  fire,
  place_tokens,
  spikes_of,
)

__all__ = ["gate", "init_state"]


def init_state(
  config: SSA, ticks: int, batch: tuple[int, ...] = (), dtype=jnp.int32
) -> SSAState:
  """Counts of 0, [ticks, *batch, d]; arguments as `ssa.init_state`."""
  shape = (checks.ticks("SDSA", ticks), *batch, config.head_size)
  return SSAState(jnp.zeros(shape, dtype), jnp.int32(0))


def gate(
  config: SSA,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  theta,
  state: SSAState | None = None,
  mask=None,
) -> tuple[jax.Array, SSAState | None]:
  """Gated spikes.

  Args:
    config: neuron, scaling, context, frac and causal as for SSA, whose bounds
      are d times those needed here; no decay.
    q: int[T, ..., N, d] or float, spikes 0 and 1.
    k: the same shape.
    v: the same shape.
    theta: threshold of the gate, as in `ssa.attend`.
    state: of the tokens before; None for none.
    mask: [N], 0 for padding; None for none.

  Returns:
    (y, state): spikes [T, ..., N, d] of q where the gate is open; the state is
    None where not causal.

  Raises:
    ConfigError: shapes that do not match, a decay, a state without an order.
    FormatError: ticks for which 32 bits do not hold the charge.
    TokenError: more tokens than the context has.
  """
  q, k, v = spikes_of(config, "SDSA", q, k, v)
  if config.decay is not None:
    raise ConfigError(
      f"SDSA: decay is {config.decay}; allowed is None, as its state is a sum"
    )
  config.check(checks.ticks("SDSA", q.shape[0]))
  places = place_tokens(config, state, q.shape[-2], mask)
  q, k = (x * places.fits.astype(x.dtype) for x in (q, k))
  both = k * v
  if not config.causal:
    total = both.sum(-2, keepdims=True)
    return q * fire(config, total, theta, places.rank[-1:]), None
  sums = jnp.cumsum(both, -2)
  if state is not None:
    check_state("SDSA", state.memory, sums[..., 0, :].shape, sums.dtype)
    sums = sums + state.memory[..., None, :]
  gates = fire(config, sums, theta, places.rank)
  return q * gates, SSAState(sums[..., -1, :], places.after)
