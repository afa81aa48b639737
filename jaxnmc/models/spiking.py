"""Spiking parts of a transformer, as operations of any interpreter.

Neurons spike over ticks; each tick of a value is a value of its own here, so
ticks lie side by side in space, and tokens stay the axis of time.  What trains
in floats is the same spikes in integers: thresholds are compared, potentials
halved and subtracted, and nothing is rounded on the way.

Attention (`jaxnmc.spike.ssa` is the same on arrays), per tick t and head:

    q, k, v = LIF of W_q x, W_k x, W_v x      the same drive in every tick
    S_i = S_(i-1) + k_i^T v_i   Y_i = q_i S_i
    s = LIF of Y over the ticks, threshold i theta for the i-th token
    out = mean over ticks of s

A neuron starts from rest for every token.

Feed-forward blocks: a neuron with threshold t_k in tick k, t_1 < t_2 < ...,
sends as many spikes as there are thresholds at or below its value.  Which value
of the activation n spikes stand for is up to the thresholds and the weights
behind, so any growing function has its table (`jaxnmc.models.to_spikes`).
"""

import functools

from jaxnmc.spike import surrogates

NEURONS = ("lif", "if")


def neuron(ops, kind: str, drives, theta, slope) -> list:
  """Spikes of a neuron from rest, soft reset, no gradient through the reset.

  Args:
    ops: an interpreter.
    kind: "lif" (h = (v + x) / 2) or "if" (h = v + x).
    drives: one value [T, ..., n] per tick.
    theta: threshold, [n] or [T, ..., n].
    slope: of the spike, for `ops.compare`.

  Returns:
    One value of 0 and 1 per tick.
  """
  spikes, v = [], None
  for x in drives:
    h = x if v is None else ops.add(v, x)
    if kind == "lif":
      h = ops.shift(h, 1)
    spikes.append(ops.compare(h, theta, slope))
    v = ops.select(spikes[-1], ops.sub(h, theta), h)
  return spikes


def rank(ops, like, mask, before, size: int):
  """How many real tokens there were, up to and with each: whole numbers.

  Args:
    ops: an interpreter.
    like: [T, ..., n], any value of the tokens.
    mask: int[T, ...], 0 for padding, or None.
    before: [..., n], tokens of the calls before; None for none.
    size: the most there can be.

  Returns:
    ([T, ..., n], the last of them).
  """

  def body(ops, count, now):
    x, real = now
    one = ops.keep(real, ops.compare(x, x))
    count = ops.site("count", ops.add(count, one), whole=size)
    return count, count

  start = ops.zeros(like) if before is None else before
  last, counts = ops.scan("rank", body, start, (like, mask))
  return counts, last


def attend(ops, config, p, drives, mask, state):
  """Spiking attention: the mean spikes of each token, and what it remembers.

  Args:
    ops: an interpreter.
    config: `gpt.Config`; its ticks, neuron, heads and context.
    p: thresholds as logarithms, {"q", "k", "v", "out"}: float[heads d].
    drives: {"q", "k", "v"}: [T, ..., heads d].
    mask: int[T, ...], 0 for padding, or None.
    state: of the tokens before; None for none.

  Returns:
    (mean over ticks [T, ..., heads d], state).
  """
  slope = surrogates.fire
  log = lambda name: ops.const(name, p[name], transform="positive")
  ticks, size = range(config.ticks), config.context
  spikes = {}
  for name, drive in drives.items():
    theta = log(name)
    fired = neuron(ops, config.neuron, [drive] * config.ticks, theta, slope)
    spikes[name] = [
      ops.site(f"{name}_spikes.{t}", ops.keep(mask, s), whole=1)
      for t, s in zip(ticks, fired)
    ]
  state = state or {"rank": None, "memory": [None] * config.ticks}
  order, last = rank(ops, drives["v"], mask, state["rank"], size)
  read, memory = [], []
  for t in ticks:
    qkv = (spikes[name][t] for name in "qkv")
    y, after = ops.memory(
      f"memory.{t}", state["memory"][t], *qkv, config.num_heads, size
    )
    read.append(y)
    memory.append(after)
  theta = ops.mul(order, log("out"))
  fired = neuron(ops, config.neuron, read, theta, slope)
  total = functools.reduce(ops.add, fired)
  # The count is what Wo reads: 1 / ticks is part of its weights.
  out = ops.site("count", ops.keep(mask, total), whole=config.ticks)
  return out, {"rank": last, "memory": memory}
