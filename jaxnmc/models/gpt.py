"""A decoder-only transformer, one pure function.

Blocks of attention and a channel mixer on a residual stream r, norms in front
(Radford et al. 2019, "GPT-2"; Touvron et al. 2023, arXiv 2302.13971):

    r = embed[id] (+ positions[p])
    x = Norm(r)   q, k, v = W_q x, W_k x, W_v x   (q, k turned by p)
    r <- r + W_o softmax(q k^T / sqrt(h)) v       over this token and before
         or, with spikes and without softmax, `jaxnmc.models.spiking.attend`
    x = Norm(r)
    r <- r + W_down (silu(W_gate x) W_up x)   or   r + W_down act(W_up x)
    logits = W_head Norm(r)

W is a dense matrix (with a bias, where the config says so), or BitLinear; act
is GELU or ReLU, or counts of spikes.  Blocks of BitLinears may do without Norm
in front: x = r.

The state is `{"position": int32[...], "layers": [{"k", "v"}, ...]}`: how many
tokens there were, and their keys and values in the first slots of memories
of fixed size C (of spiking attention its sums: `init_state`).  Padding (mask 0)
takes no slot and no position.  A token after C others finds no place; its
logits are NaN, and whoever knows the length beforehand refuses it
(`check_inputs`, `Generator`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from jaxnmc.models import bitlinear, spiking
from jaxnmc.models.gpt_config import GPT2, PRESETS, Config
from jaxnmc.models.inputs import check_context, token_check
from jaxnmc.models.model import Out
from jaxnmc.models.parameters import Parameter, build
from jaxnmc.ops.windows import widest

__all__ = [
  "GPT2",
  "PRESETS",
  "Config",
  "init_params",
  "init_state",
  "make",
  "parameters",
]


@dataclasses.dataclass(frozen=True)
class Places:
  """Where the tokens of one call stand.

  Attributes:
    positions: int32[T, ...], tokens before each.
    slots: int32[T, ...], where its key and value go; C for nowhere.
    seen: bool[T, S, ...], whether token t sees key s: S = T keys of this call
      without a state, else the S = C slots of the memory.
    real: bool[T, ...], whether it is a token that has a place; None: all are.
    end: int32[...], tokens after this call.
  """

  positions: jax.Array
  slots: jax.Array
  seen: jax.Array
  real: jax.Array | None
  end: jax.Array


def place(ops, size: int, ids, mask=None, start=None) -> Places:
  """Places of tokens.

  Args:
    ops: an interpreter.
    size: C.
    ids: int32[T, ...].
    mask: 0 for padding; None for none.
    start: int32[...], tokens of earlier calls; None for none.
  """
  positions, end = ops.positions(ids, mask, start)
  fits = positions < size
  real = fits if mask is None else fits & (jnp.asarray(mask) == 1)
  slots = jnp.where(real, positions, size)
  keys = slots
  if start is not None:
    keys = jnp.arange(size).reshape(size, *(1,) * (ids.ndim - 1))
  seen = (keys[None] <= positions[:, None]) & fits[:, None]
  # Known to be true where nothing came before and nothing is masked.
  known = mask is None and start is None
  return Places(positions, slots, seen, None if known else real, end)


def _norm(ops, config, name, p, x):
  if config.norm == "rms":
    return ops.norm(name, x, p["gain"], config.norm_eps)
  return ops.layer_norm(name, x, p["gain"], p["bias"], config.norm_eps)


def _block_norm(ops, config, p, part, r):
  """What a mixer reads: the residual stream, normalised or as it is."""
  if not config.block_norms:
    return r
  return _norm(ops, config, "norm", p[f"{part}_norm"], r)


def _projections(ops, config, names, p, x) -> list:
  """Several projections of one value."""
  if not config.ternary:
    return [ops.dense(n, p[n]["weight"], x, p[n].get("bias")) for n in names]
  gains = {n: p[n]["norm"] for n in names}
  inner = ops.norms("in_norm", x, gains, config.bitlinear_eps)
  return [bitlinear.product(ops, n, p[n], inner[n]) for n in names]


def _projection(ops, config, name, p, x):
  if config.ternary:
    return bitlinear.bit_linear(ops, name, p[name], x, config.bitlinear_eps)
  return _projections(ops, config, (name,), p, x)[0]


def _token_mixer(ops, config, p, x, places, state):
  """Attention: (output before the residual, state of this layer)."""
  q, k, v = _projections(ops, config, ("q", "k", "v"), p, x)
  if config.positions == "rotary":
    turn = lambda name, x, heads: ops.rotate(
      *(name, x, places.positions, heads),
      *(config.rope_theta, config.rotary_pairs),
    )
    q = turn("q_turned", q, config.num_heads)
    k = turn("k_turned", k, config.kv_heads)
  if config.attention == "ssa":
    drives = {"q": q, "k": k, "v": v}
    with ops.at("ssa"):
      mixed, state = spiking.attend(
        ops, config, p["ssa"], drives, places.real, state
      )
    return _projection(ops, config, "o", p, mixed), state
  old = state or {"k": None, "v": None}
  memory = {
    "k": ops.remember("k_memory", old["k"], k, places.slots, config.context),
    "v": ops.remember("v_memory", old["v"], v, places.slots, config.context),
  }
  # Without a state the keys of this call are all there are, and fewer.
  keys = {"k": k, "v": v} if state is None else memory
  mixed = ops.attention(
    *("mixed", q, keys["k"], keys["v"], places.seen),
    *(config.num_heads, config.kv_heads),
  )
  return _projection(ops, config, "o", p, mixed), memory


def _channel_mixer(ops, config, p, x):
  if config.mlp == "swiglu":
    gate, up = _projections(ops, config, ("gate", "up"), p, x)
    hidden = ops.site("glu", ops.mul(ops.silu("silu", gate), up))
    if config.mlp_ticks is not None:
      hidden = spiking.counts(ops, hidden, p["fire"], config.mlp_ticks, True)
  else:
    (up,) = _projections(ops, config, ("up",), p, x)
    if config.mlp_ticks is not None:
      # The table has the activation in it.
      hidden = spiking.counts(ops, up, p["fire"], config.mlp_ticks, False)
    elif config.mlp == "relu":
      hidden = ops.site("relu", ops.max(up, ops.zeros(up)))
    else:
      form = "tanh" if config.mlp == "gelu_tanh" else "erf"
      hidden = ops.gelu("gelu", up, form)
  return _projection(ops, config, "down", p, hidden)


def embedded(ops, config: Config, params, ids, places: Places):
  """The residual stream in front of the first layer.

  Args:
    ops: an interpreter.
    config: sizes and options.
    params: of the model.
    ids: int32[T, ...].
    places: of the tokens.

  Returns:
    [T, ..., D].
  """
  r = ops.embed("embed", params["embed"]["weight"], ids)
  if config.positions == "learned":
    table = params["positions"]["weight"]
    p = ops.embed("positions", table, places.positions)
    r = ops.site("in", ops.add(r, p))
  return r


def block(ops, config: Config, p, r, places: Places, state=None):
  """One layer.

  Args:
    ops: an interpreter, inside of the layer's scope.
    config: sizes and options, of the layer (`Config.layer`).
    p: parameters of the layer.
    r: residual stream [T, ..., D].
    places: of the tokens.
    state: of the layer, or None.

  Returns:
    (residual stream, state).
  """
  with ops.at("attn"):
    x = _block_norm(ops, config, p, "attn", r)
    mixed, state = _token_mixer(ops, config, p["attn"], x, places, state)
  r = ops.site("mid", ops.add(r, mixed))
  with ops.at("mlp"):
    x = _block_norm(ops, config, p, "mlp", r)
    mixed = _channel_mixer(ops, config, p["mlp"], x)
  return ops.site("out", ops.add(r, mixed)), state


def _head(ops, config, params, x):
  if config.tie_word_embeddings:
    # One table, one format: that of the embedding.
    table = params["embed"]["weight"]
    return ops.dense("head", table, x, tied=ops.path("embed"))
  if config.ternary:
    return bitlinear.bit_linear(
      ops, "head", params["head"], x, config.bitlinear_eps
    )
  head = params["head"]
  return ops.dense("head", head["weight"], x, head.get("bias"))


def make(config: Config):
  """The model as a pure function.

  Args:
    config: sizes and options.

  Returns:
    `fn(ops, params, inputs, state) -> (Out, state)`; `inputs` is
    `{"ids": int32[T, ...], "mask": the same shape or absent}`, `state` the
    result of an earlier call or None for none.  `fn.context` is C.
  """

  def fn(ops, params, inputs, state=None):
    ids, mask = inputs["ids"], inputs.get("mask")
    if mask is None:
      # Also where no transform has checked the inputs, as in training.
      check_context(ids.shape[0], config.context, "inputs['ids']")
    start = None if state is None else state["position"]
    places = place(ops, config.context, ids, mask, start)
    r = embedded(ops, config, params, ids, places)
    layers = []
    for index, p in enumerate(params["layers"]):
      old = None if state is None else state["layers"][index]
      with ops.layer(index):
        r, memory = block(ops, config.layer(index), p, r, places, old)
      layers.append(memory)
    x = _norm(ops, config, "norm", params["norm"], r)
    logits = _head(ops, config, params, x)
    return Out(logits), {"position": places.end, "layers": layers}

  # The transforms call this while the inputs may still be concrete.
  fn.check_inputs = token_check(  # type: ignore[attr-defined]
    config.vocab_size, config.context
  )
  fn.context = config.context  # type: ignore[attr-defined]
  return fn


def parameters(config: Config) -> tuple[Parameter, ...]:
  """Every parameter, in the order of the network.

  Projections that add to the residual stream begin smaller, by sqrt(2 L), so
  that the stream does not grow with the depth (Radford et al. 2019).
  """
  d, v = config.hidden_size, config.vocab_size
  std = config.initializer_range
  rows: list[Parameter] = []

  def norm(path: str) -> None:
    rows.append(Parameter(path + ".gain", (d,), "gain"))
    if config.norm == "layer":
      rows.append(Parameter(path + ".bias", (d,), "bias"))

  def matrix(path: str, out: int, inp: int, std: float, bias=False) -> None:
    kind = "matrix" if config.ternary else "dense"
    rows.append(Parameter(path + ".weight", (out, inp), kind, std))
    if bias:
      rows.append(Parameter(path + ".bias", (out,), "bias"))
    if config.ternary:
      rows.append(Parameter(path + ".norm", (inp,), "gain"))

  added = std / (2 * config.num_layers) ** 0.5
  rows.append(Parameter("embed.weight", (v, d), "table", std))
  if config.positions == "learned":
    shape = (config.context, d)
    rows.append(Parameter("positions.weight", shape, "table", std))
  for layer, here in enumerate(config.layers):
    i, size = here.mlp_size, here.head_size
    q, kv = here.num_heads * size, here.kv_heads * size
    mlp = [("up", i, d, std), ("down", d, i, added)]
    if config.mlp == "swiglu":
      mlp = [("gate", i, d, std), *mlp]
    attn = [("q", q, d, std), ("k", kv, d, std), ("v", kv, d, std)]
    attn.append(("o", d, q, added))
    if config.attention == "ssa":
      rows.extend(
        Parameter(f"layers.{layer}.attn.ssa.{name}", (q,), "threshold")
        for name in ("q", "k", "v", "out")
      )
    if config.mlp_ticks is not None:
      path, shape = f"layers.{layer}.mlp.fire", (config.mlp_ticks, i)
      rows.append(Parameter(path, shape, "table of thresholds"))
    for part, matrices in (("attn", attn), ("mlp", mlp)):
      if config.block_norms:
        norm(f"layers.{layer}.{part}_norm")
      for name, out, inp, spread in matrices:
        path = f"layers.{layer}.{part}.{name}"
        matrix(path, out, inp, spread, config.bias)
  norm("norm")
  if not config.tie_word_embeddings:
    matrix("head", v, d, std, config.head_bias)
  return tuple(rows)


def _even_steps(shape: tuple[int, ...], dtype) -> jax.Array:
  """(k + 1/2) / ticks in row k: [ticks, n]."""
  steps = (jnp.arange(shape[0], dtype=dtype) + 0.5) / shape[0]
  return jnp.broadcast_to(steps[:, None], shape)


def init_params(config: Config, key: jax.Array) -> dict:
  """Fresh float32 parameters: normal matrices, gains 1, biases 0.

  Args:
    config: sizes and options.
    key: PRNG key.

  Returns:
    Nested dict of float32 arrays.
  """
  rows = parameters(config)
  keys = jax.random.split(key, len(rows))
  # Thresholds of attention are logarithms, those of tables grow by ticks.
  start: dict[str, Callable] = {
    "gain": jnp.ones,
    "bias": jnp.zeros,
    "threshold": jnp.zeros,
    "table of thresholds": _even_steps,
  }

  def draw(row: Parameter, key: jax.Array) -> jax.Array:
    if row.kind in start:
      return start[row.kind](row.shape, jnp.float32)
    return row.std * jax.random.normal(key, row.shape, jnp.float32)

  pairs = zip(rows, keys, strict=True)
  return build({row.path: draw(row, key) for row, key in pairs})


def init_state(config: Config, batch: tuple[int, ...] = ()) -> dict[str, Any]:
  """Empty memories per layer, position 0.

  Softmax: {"k", "v"}: float32[*batch, C, kv_heads h].  SSA: {"seen":
  float32[*batch, H h], "memory": float32[*batch, H h h] per tick}; with windows
  {"sums": that memory, "past": [k, v]}, float32[*batch, H h] of 1 ... W tokens
  ago.
  """
  empty = lambda *shape: jnp.zeros((*batch, *shape), jnp.float32)

  def memory(config, width: int):
    sums = empty(width * config.head_size)
    if config.windows is None:
      return sums
    ages = range(widest(config.windows))
    return {"sums": sums, "past": [[empty(width) for _ in ages] for _ in "kv"]}

  def layer(config: Config):
    width = config.kv_heads * config.head_size
    if config.attention == "softmax":
      return {name: empty(config.context, width) for name in "kv"}
    return {
      "seen": empty(width),
      "memory": [memory(config, width) for _ in range(config.ticks)],
    }

  return {
    "position": jnp.zeros(batch, jnp.int32),
    "layers": [layer(here) for here in config.layers],
  }
