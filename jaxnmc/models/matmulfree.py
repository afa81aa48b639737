"""The MatMul-free language model (HGRN-bit), one pure function.

Zhu et al. 2024, arXiv 2406.02528, as its public code computes it: blocks of a
token mixer (MLGRU) and a channel mixer (GLU) on a residual stream r:

    token mixer, on x = RMSNorm(r):
      i = L_i(x)   f = sigmoid(L_f(x))   z = L_g(x)
      f <- lb + (1 - lb) f                       (layers above the first)
      h_t = f h_{t-1} + (1 - f) silu(i)
      r <- r + L_o(RMSNorm(z) silu(h))
    channel mixer, on x = RMSNorm(r):
      g, u = L_gate(x)
      r <- r + L_down(silu(g) u)

L is BitLinear: its own RMSNorm, an activation quantiser, a ternary matrix.
"""

import jax
from jax import numpy as jnp

from jaxnmc.models.bitlinear import bit_linear, product
from jaxnmc.models.inputs import token_check
from jaxnmc.models.matmulfree_config import PRESETS, Config
from jaxnmc.models.model import Out

__all__ = ["PRESETS", "Config", "Out", "init_params", "init_state", "make"]


def _normed(ops, config, outer, inner, r):
  """Block norm, then the norms of the BitLinears that read it.

  Args:
    ops: interpreter.
    config: names the formulation: `double` computes one norm after the
      other, `fused` both with one root, straight from r.
    outer: gain of the block norm, [D].
    inner: name -> gain of a BitLinear's norm, [D].
    r: residual stream.

  Returns:
    name -> input of that BitLinear's product.
  """
  eps1, eps2 = config.rms_norm_eps, config.bitlinear_eps
  if config.norm == "fused":
    return ops.double_norm("in_norm", r, outer, inner, eps1, eps2)
  x = ops.norm("norm", r, outer, eps1)
  return ops.norms("in_norm", x, inner, eps2)


def _recurrence(ops, carry, gates):
  f, u = gates
  h = ops.site("h", ops.add(ops.mul(f, carry), u), align="u")
  return h, h


def _token_mixer(ops, config, p, norm_gain, bound, r, state, mask):
  """MLGRU: (output before the residual, last state [..., E])."""
  inner = {name: p[name]["norm"] for name in "ifg"}
  x = _normed(ops, config, norm_gain, inner, r)
  i, f, z = (product(ops, name, p[name], x[name]) for name in "ifg")
  rest = ops.one_minus(ops.sigmoid(f))
  if bound is not None:
    rest = ops.mul(ops.one_minus(bound), rest)
  rest = ops.site("rest", rest, unit=True)
  u = ops.keep(mask, ops.mul(ops.silu("silu_i", i), rest))
  u = ops.site("u", u)
  init = ops.zeros(u) if state is None else state
  f = ops.one_minus(rest)
  state, h = ops.scan("mlgru", _recurrence, init, (f, u))
  gate = ops.norm("g_norm", z, p["g_norm"], config.rms_norm_eps)
  gated = ops.site("gated", ops.mul(gate, ops.silu("silu_h", h)))
  return bit_linear(ops, "o", p["o"], gated, config.bitlinear_eps), state


def _channel_mixer(ops, config, p, norm_gain, r):
  """GLU: output before the residual."""
  x = _normed(ops, config, norm_gain, {"gate": p["gate"]["norm"]}, r)
  with ops.at("gate"):
    x = ops.act_quant("act", x["gate"])
    gate, up = ops.linear_split("weight", p["gate"]["weight"], x, 2)
    gate, up = ops.site("out", gate), ops.site("up", up)
  hidden = ops.site("glu", ops.mul(ops.silu("silu", gate), up))
  return bit_linear(ops, "down", p["down"], hidden, config.bitlinear_eps)


def make(config: Config):
  """The model as a pure function.

  Args:
    config: sizes and options.

  Returns:
    `fn(ops, params, inputs, state) -> (Out, state)`; `inputs` is
    `{"ids": int32[T, ...], "mask": the same shape or absent}`, `state` the
    result of an earlier call or None for zeros.
  """

  def fn(ops, params, inputs, state=None):
    mask = inputs.get("mask")
    bounds = None
    if config.use_lower_bound:
      raw = params["lower_bounds"]
      bounds = ops.const("lower_bounds", raw, "lower_bounds", unit=True)
    r = ops.embed("embed", params["embed"]["weight"], inputs["ids"])
    states = []
    for index, p in enumerate(params["layers"]):
      bound = ops.index(bounds, index) if bounds is not None and index else None
      h = None if state is None else state["layers"][index]
      with ops.layer(index):
        with ops.at("attn"):
          mixed, h = _token_mixer(
            ops, config, p["attn"], p["attn_norm"], bound, r, h, mask
          )
        r = ops.site("mid", ops.add(r, mixed))
        with ops.at("mlp"):
          mixed = _channel_mixer(ops, config, p["mlp"], p["mlp_norm"], r)
        r = ops.site("out", ops.add(r, mixed))
      states.append(h)
    head = params["head"]
    with ops.at("final"):
      x = _normed(ops, config, params["norm"], {"head": head["norm"]}, r)
    logits = product(ops, "head", head, x["head"])
    return Out(logits), {"layers": states}

  # The transforms call this while the inputs may still be concrete.
  fn.check_inputs = token_check(config.vocab_size)  # type: ignore[attr-defined]
  return fn


def init_params(config: Config, key: jax.Array) -> dict:
  """Fresh float32 parameters, initialised as the reference really does.

  Token-mixer projections are Xavier-uniform with gain 2^-2.5; gate, head and
  embedding N(0, initializer_range); down projection the same over sqrt(2 L);
  gains 1; lower bounds 0.

  Args:
    config: sizes and options.
    key: PRNG key.

  Returns:
    Nested dict of float32 arrays.
  """
  d, e, inner = config.hidden_size, config.state_size, config.mlp_size
  std = config.initializer_range
  keys = iter(jax.random.split(key, 2 + 6 * config.num_layers))

  def normal(shape, scale=std):
    return scale * jax.random.normal(next(keys), shape, jnp.float32)

  def xavier(out, inp):
    limit = 2**-2.5 * (6 / (inp + out)) ** 0.5
    draw = jax.random.uniform(next(keys), (out, inp), jnp.float32, -1, 1)
    return limit * draw

  def bit(weight):
    return {"weight": weight, "norm": jnp.ones(weight.shape[1], jnp.float32)}

  def layer():
    return {
      "attn_norm": jnp.ones(d, jnp.float32),
      "attn": {
        **{n: bit(xavier(e, d)) for n in "ifg"},
        "o": bit(xavier(d, e)),
        "g_norm": jnp.ones(e, jnp.float32),
      },
      "mlp_norm": jnp.ones(d, jnp.float32),
      "mlp": {
        "gate": bit(normal((2 * inner, d))),
        "down": bit(normal((d, inner), std / (2 * config.num_layers) ** 0.5)),
      },
    }

  params = {
    "embed": {"weight": normal((config.vocab_size, d))},
    "layers": [layer() for _ in range(config.num_layers)],
    "norm": jnp.ones(d, jnp.float32),
    "head": bit(normal((config.vocab_size, d))),
  }
  if config.use_lower_bound:
    params["lower_bounds"] = jnp.zeros((config.num_layers, d), jnp.float32)
  return params


def init_state(config: Config, batch: tuple[int, ...] = ()) -> dict:
  """Zero recurrent state, float32[*batch, E] per layer."""
  shape = (*batch, config.state_size)
  return {
    "layers": [jnp.zeros(shape, jnp.float32) for _ in range(config.num_layers)]
  }
