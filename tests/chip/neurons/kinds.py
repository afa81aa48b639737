"""Every stock neuron with its rule and what Hypothesis may draw for it."""

import dataclasses
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from jax import numpy as jnp

from jaxnmc.chip import neurons
from tests.chip.neurons import rules

WORD = 2**31 - 1
TOP = 2**23 - 1


def ints(limit: int, low: int | None = None):
  """Numbers of all sizes up to a limit, its edges among them."""
  low = -limit if low is None else low
  small = st.integers(max(low, -200), min(limit, 200))
  edges = {low, low + 1, -1, 0, 1, limit - 1, limit}
  edges = sorted(e for e in edges if low <= e <= limit)
  return st.one_of(st.integers(low, limit), small, st.sampled_from(edges))


@dataclasses.dataclass(frozen=True)
class Kind:
  """One stock neuron.

  Attributes:
    make: the class.
    rule: its step in `rules`.
    draws: parameter -> strategy; a list parameter is drawn per neuron.
    each: parameters that are lists.
    limit: largest input, by port or one for all.
    state: largest start value per state; None starts from `init`.
  """

  make: Callable
  rule: Callable
  draws: dict
  limit: tuple[int, ...]
  each: tuple[str, ...] = ()
  state: tuple[int, ...] | None = None


LEAK = {
  "du": ints(4095, 0),
  "dv": ints(4095, 0),
  "bias_mant": ints(4095, -4096),
  "bias_exp": st.integers(-12, 7),
}
BIAS = ("bias_mant", "bias_exp")
VTH = {"vth": ints(2**17 - 1, 0)}
RF = {
  "sin_decay": ints(4096),
  "cos_decay": ints(4096),
  "state_exp": st.integers(0, 6),
  "decay_bits": st.just(12),
}
ENCODER = {
  "vth": ints(511, 0),
  "cum_error": st.booleans(),
  "spike_exp": st.integers(0, 7),
  "state_exp": st.integers(0, 7),
}
LARGE = {"vth": st.one_of(ints(TOP, 0), ints(50, 0))}

KINDS = {
  "LIF": Kind(neurons.LIF, rules.lif, LEAK | VTH, (2**18,), BIAS, (2**23, TOP)),
  "TernaryLIF": Kind(
    neurons.TernaryLIF,
    rules.ternary_lif,
    LEAK | {"vth_hi": ints(2**17 - 1, 0), "vth_lo": ints(0, -(2**17) + 1)},
    (2**18,),
    BIAS,
    (2**23, TOP),
  ),
  "LIFReset": Kind(
    neurons.LIFReset,
    rules.lif_reset,
    LEAK
    | VTH
    | {"reset_interval": st.integers(1, 5), "reset_offset": st.integers(0, 9)},
    (2**18,),
    BIAS,
  ),
  "LeakyIntegrator": Kind(
    neurons.LeakyIntegrator,
    rules.integrator,
    LEAK,
    (2**18,),
    BIAS,
    (2**23, TOP),
  ),
  "Threshold": Kind(
    neurons.Threshold, rules.threshold, {"vth": ints(WORD - 1)}, (WORD,)
  ),
  "RF": Kind(neurons.RF, rules.rf, RF | VTH, (WORD, WORD), (), (TOP, TOP)),
  "RFIzhikevich": Kind(
    neurons.RFIzhikevich,
    rules.rf_izhikevich,
    RF | VTH,
    (WORD, WORD),
    (),
    (TOP, TOP),
  ),
  "GradedVec": Kind(neurons.GradedVec, rules.graded, LARGE, (WORD,)),
  "GradedReluVec": Kind(
    neurons.GradedReluVec, rules.graded_relu, LARGE, (WORD,)
  ),
  "NormVecDelay": Kind(
    neurons.NormVecDelay,
    rules.norm_vec_delay,
    LARGE | {"delay": st.integers(1, 2)},
    (46340, 46340),
  ),
  "InvSqrt": Kind(neurons.InvSqrt, rules.inv_sqrt, {}, (WORD,)),
  "ProdNeuron": Kind(
    neurons.ProdNeuron,
    rules.product,
    LARGE | {"exp": st.integers(16, 46)},
    (TOP, TOP),
  ),
  "Delta": Kind(neurons.Delta, rules.delta, ENCODER, (2**14,)),
  "SigmaDelta": Kind(
    neurons.SigmaDelta,
    rules.sigma_delta,
    ENCODER
    | {"bias": ints(511), "activation": st.sampled_from(["relu", "unit"])},
    (2**24,),
    ("bias",),
  ),
}


def draw(data, kind: Kind, n: int, steps: int):
  """Draws (parameters, start state or None, inputs int32[T, ports, n])."""
  parameters = {
    name: tuple(data.draw(s) for _ in range(n))
    if name in kind.each
    else data.draw(s)
    for name, s in kind.draws.items()
  }
  start = None
  if kind.state:
    start = [
      np.array([data.draw(ints(limit)) for _ in range(n)], np.int32)
      for limit in kind.state
    ]
  inputs = [
    [[data.draw(ints(limit)) for _ in range(n)] for limit in kind.limit]
    for _ in range(steps)
  ]
  return parameters, start, np.array(inputs, np.int32)


def columns(*leaves) -> list[tuple[int, ...]]:
  """int32[n] each -> one tuple of Python integers per neuron."""
  return list(zip(*(np.asarray(x).tolist() for x in leaves)))


def expected(kind: Kind, parameters, start, inputs):
  """The rule, neuron by neuron.

  Args:
    kind: the neuron.
    parameters: as drawn.
    start: tuple of Python integers per neuron.
    inputs: int32[T, ports, n].

  Returns:
    (states int[T][state][n], messages [T][n]) as lists of Python integers.
  """
  states, messages = [], []
  for i, state in enumerate(start):
    mine = {
      k: v[i] if k in kind.each and isinstance(v, tuple) else v
      for k, v in parameters.items()
    }
    track, sent = [], []
    for x in inputs:
      state, message = kind.rule(
        state, tuple(int(port[i]) for port in x), **mine
      )
      track.append(state)
      sent.append(message)
    states.append(track)
    messages.append(sent)
  by_step = [list(zip(*[t[k] for t in states])) for k in range(len(inputs))]
  return by_step, list(zip(*messages))


def ports(x):
  """int32[ports, n] -> the tuple that a neuron takes."""
  return tuple(jnp.asarray(port) for port in x)
