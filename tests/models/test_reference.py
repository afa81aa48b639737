"""Law 1: the float model against NumPy, and against recorded outputs.

The NumPy model below is written from the equations (module docstring of
`jaxnmc.models.matmulfree`), batch first, with its gradient by hand: straight
through both quantisers.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.models import matmulfree
from jaxnmc.ops import transform

# --- the model and its gradient in NumPy


def norm(x, g, eps):
  r = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + eps)

  def back(dy):
    dg = (dy * x * r).reshape(-1, len(g)).sum(0)
    dn = dy * g
    return r * dn - x * r**3 * (dn * x).mean(-1, keepdims=True), dg

  return x * r * g, back


def act_quant(x):
  s = 127 / np.maximum(abs(x).max(-1, keepdims=True), 1e-5)
  return np.clip(np.sign(x) * np.floor(abs(x * s) + 0.5), -128, 127) / s


def ternary(w):
  c = max(abs(w).mean(), 1e-5)
  return c * np.clip(np.round(w / c), -1, 1)


def bit_linear(p, x, eps):
  y, back_norm = norm(x, p["norm"], eps)
  y, w = act_quant(y), ternary(p["weight"])

  def back(d):
    rows = lambda a: a.reshape(-1, a.shape[-1])
    dx, dg = back_norm(d @ w)
    return dx, {"weight": rows(d).T @ rows(y), "norm": dg}

  return y @ w.T, back


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  s = sigmoid(x)
  return x * s, s * (1 + x * (1 - s))


def mixer(c, p, lb, x, h, mask):
  """Token mixer: output, last state, backward."""
  i, back_i = bit_linear(p["i"], x, c.bitlinear_eps)
  f, back_f = bit_linear(p["f"], x, c.bitlinear_eps)
  z, back_z = bit_linear(p["g"], x, c.bitlinear_eps)
  s = sigmoid(f)
  f = lb + (1 - lb) * s
  a, da = silu(i)
  u = a * (1 - f) * mask[..., None]
  hs = []
  for t in range(x.shape[1]):
    h = f[:, t] * (hs[-1] if hs else h) + u[:, t]
    hs.append(h)
  hs = np.stack(hs, 1)
  gate, back_g = norm(z, p["g_norm"], c.rms_norm_eps)
  b, db = silu(hs)
  out, back_o = bit_linear(p["o"], gate * b, c.bitlinear_eps)

  def back(d):
    dgated, go = back_o(d)
    dz, gg = back_g(dgated * b)
    dhs = dgated * gate * db
    dh, du, df = 0, np.zeros_like(u), np.zeros_like(f)
    for t in range(x.shape[1])[::-1]:
      dh = dh + dhs[:, t]
      du[:, t] = dh
      df[:, t] = dh * (hs[:, t - 1] if t else 0)
      dh = dh * f[:, t]
    du = du * mask[..., None]
    df = df - du * a
    dlb = (df * (1 - s)).sum((0, 1))
    dxi, gi = back_i(du * (1 - f) * da)
    dxf, gf = back_f(df * (1 - lb) * s * (1 - s))
    dxz, gz = back_z(dz)
    grads = {"i": gi, "f": gf, "g": gz, "o": go, "g_norm": gg}
    return dxi + dxf + dxz, grads, dlb

  return out, hs[:, -1], back


def channel(c, p, x):
  w, back_w = bit_linear(p["gate"], x, c.bitlinear_eps)
  g, u = np.split(w, 2, -1)
  a, da = silu(g)
  out, back_o = bit_linear(p["down"], a * u, c.bitlinear_eps)

  def back(d):
    dm, gd = back_o(d)
    dx, gw = back_w(np.concatenate([dm * u * da, dm * a], -1))
    return dx, {"gate": gw, "down": gd}

  return out, back


def bounds_of(raw):
  e = np.exp(raw - raw.max(0))
  share = e / e.sum(0)
  return share.cumsum(0) - share[0], share


def model(c, params, ids, state, mask):
  """logits, states, block outputs, backward(dlogits) -> grads."""
  r = params["embed"]["weight"][ids]
  lbs = np.zeros((c.num_layers, 1))
  if c.use_lower_bound:
    lbs, share = bounds_of(params["lower_bounds"])
  states, blocks, backs = [], [], []
  for i, p in enumerate(params["layers"]):
    h = np.zeros((len(ids), c.state_size)) if state is None else state[i]
    x, back1 = norm(r, p["attn_norm"], c.rms_norm_eps)
    m, h, back2 = mixer(c, p["attn"], lbs[i], x, h, mask)
    r = r + m
    x, back3 = norm(r, p["mlp_norm"], c.rms_norm_eps)
    m, back4 = channel(c, p["mlp"], x)
    r = r + m
    states.append(h)
    blocks.append(r)
    backs.append((back1, back2, back3, back4))
  x, back_n = norm(r, params["norm"], c.rms_norm_eps)
  logits, back_h = bit_linear(params["head"], x, c.bitlinear_eps)

  def back(d):
    dx, g_head = back_h(d)
    dr, g_norm = back_n(dx)
    layers, dlbs = [], []
    for back1, back2, back3, back4 in backs[::-1]:
      dx, g_mlp = back4(dr)
      dx, g_mlp_norm = back3(dx)
      dr = dr + dx
      dx, g_attn, dlb = back2(dr)
      dx, g_attn_norm = back1(dx)
      dr = dr + dx
      dlbs.insert(0, dlb)
      layers.insert(
        0,
        {
          "attn_norm": g_attn_norm,
          "attn": g_attn,
          "mlp_norm": g_mlp_norm,
          "mlp": g_mlp,
        },
      )
    table = np.zeros_like(params["embed"]["weight"])
    np.add.at(table, ids, dr)
    grads = {
      "embed": {"weight": table},
      "layers": layers,
      "norm": g_norm,
      "head": g_head,
    }
    if c.use_lower_bound:
      dlb = np.stack(dlbs)
      dlb[0] = 0  # the bound of layer 0 is constant
      dshare = dlb[::-1].cumsum(0)[::-1].copy()
      dshare[0] -= dlb.sum(0)
      inner = (dshare * share).sum(0)
      grads["lower_bounds"] = share * (dshare - inner)
    return grads

  return logits, states, blocks, back


def loss_and_grad(logits, ids):
  """Mean next-token cross-entropy and its gradient by the logits."""
  x = logits[:, :-1]
  e = np.exp(x - x.max(-1, keepdims=True))
  p = e / e.sum(-1, keepdims=True)
  hot = np.eye(x.shape[-1])[ids[:, 1:]]
  count = hot.shape[0] * hot.shape[1]
  grad = np.zeros_like(logits)
  grad[:, :-1] = (p - hot) / count
  return -(hot * np.log(p)).sum() / count, grad


# --- our own small cases

SIZES = {
  "vocab_size": 9,
  "hidden_size": 12,
  "num_layers": 3,
  "intermediate_size": 10,
}
CONFIGS = {
  "bounded": matmulfree.Config(**SIZES),
  "fused": matmulfree.Config(
    **{**SIZES, "num_layers": 2}, norm="fused", num_heads=3
  ),
  "unbounded, wide state": matmulfree.Config(
    **{**SIZES, "num_layers": 2}, use_lower_bound=False, expand_ratio=1.5
  ),
  "one layer, other eps": matmulfree.Config(
    **{**SIZES, "num_layers": 1}, rms_norm_eps=1e-3, bitlinear_eps=1e-2
  ),
}
IDS = np.random.default_rng(5).integers(0, 9, (2, 6)).astype(np.int32)
MASK = np.array([[0, 0, 1, 1, 1, 1], [1] * 6], np.int32)


@functools.cache
def make_params(name):
  config = CONFIGS[name]
  draw = np.random.default_rng(11)
  shapes = jax.eval_shape(
    lambda: matmulfree.init_params(config, jax.random.key(0))
  )

  def fill(leaf):
    noise = draw.normal(size=leaf.shape)
    if len(leaf.shape) == 1:
      return 1 + 0.4 * noise
    return noise

  return jax.tree.map(fill, shapes)


@functools.cache
def run64(name):
  """Jitted float64 run with taps, and its results with a mask."""
  fn = matmulfree.make(CONFIGS[name])
  with jax.enable_x64(True):
    run = jax.jit(transform.reference(fn, taps=True))
    out, state, taps = run(make_params(name), {"ids": IDS, "mask": MASK}, None)
    return np.asarray(out.logits), jax.device_get(state), jax.device_get(taps)


@pytest.mark.parametrize("name", CONFIGS)
def test_float64_equals_numpy(name):
  logits, state, taps = run64(name)
  want, states, blocks, _ = model(
    CONFIGS[name], make_params(name), IDS, None, MASK
  )
  assert logits.dtype == np.float64
  np.testing.assert_allclose(logits, want, rtol=0, atol=1e-9)
  for i, h in enumerate(states):
    np.testing.assert_allclose(state["layers"][i], h, rtol=0, atol=1e-9)
    block = taps[f"layers.{i}.out"]
    np.testing.assert_allclose(block, blocks[i], rtol=0, atol=1e-9)


@pytest.mark.slow  # verify's own golden case has float32 by default
def test_float32_is_close():
  name = "bounded"
  fn = matmulfree.make(CONFIGS[name])
  params = jax.tree.map(lambda x: x.astype(np.float32), make_params(name))
  run = jax.jit(transform.reference(fn))
  out, state = run(params, {"ids": IDS, "mask": MASK})
  want, states, _, _ = model(CONFIGS[name], make_params(name), IDS, None, MASK)
  assert out.logits.dtype == np.float32
  np.testing.assert_allclose(out.logits, want, rtol=1e-5, atol=2e-5)
  for got, h in zip(state["layers"], states):
    np.testing.assert_allclose(got, h, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
  "name",
  [
    "bounded",
    pytest.param("unbounded, wide state", marks=pytest.mark.slow),
  ],
)
def test_gradients_equal_numpy(name):
  fn = matmulfree.make(CONFIGS[name])

  def loss(params):
    out, _ = transform.reference(fn)(params, {"ids": IDS})
    log_p = jax.nn.log_softmax(out.logits[:, :-1])
    return -jnp.take_along_axis(log_p, IDS[:, 1:, None], -1).mean()

  with jax.enable_x64(True):
    params = make_params(name)
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    logits, _, _, back = model(
      CONFIGS[name], params, IDS, None, np.ones_like(IDS)
    )
    want, dlogits = loss_and_grad(logits, IDS)
    assert float(value) == pytest.approx(want, rel=1e-9)
    wanted = back(dlogits)
    assert jax.tree.structure(wanted) == jax.tree.structure(grads)
    for (path, g), w in zip(
      jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(wanted)
    ):
      np.testing.assert_allclose(
        g, w, rtol=1e-9, atol=1e-9 * abs(w).max() + 1e-15, err_msg=str(path)
      )


def test_left_padding_equals_no_padding():
  name = "bounded"
  logits, state, _ = run64(name)
  fn = matmulfree.make(CONFIGS[name])
  with jax.enable_x64(True):
    out, last = jax.jit(transform.reference(fn))(
      make_params(name), {"ids": IDS[0, 2:]}
    )
  np.testing.assert_allclose(logits[0, 2:], out.logits, rtol=0, atol=1e-12)
  for h, g in zip(state["layers"], last["layers"]):
    np.testing.assert_allclose(h[0], g, rtol=0, atol=1e-12)


def test_prefill_and_decode_equal_one_run():
  name = "one layer, other eps"
  fn = matmulfree.make(CONFIGS[name])
  ids = IDS[1]
  with jax.enable_x64(True):
    run = jax.jit(transform.reference(fn))
    params = make_params(name)
    whole, last = run(params, {"ids": ids})
    out, state = run(params, {"ids": ids[:4]})
    rows = [out.logits]
    for t in (4, 5):
      out, state = run(params, {"ids": ids[t : t + 1]}, state)
      rows.append(out.logits)
  np.testing.assert_allclose(
    np.concatenate(rows), whole.logits, rtol=0, atol=1e-12
  )
  np.testing.assert_allclose(
    state["layers"][0], last["layers"][0], rtol=0, atol=1e-12
  )


def test_heads_do_not_matter():
  def program(heads):
    config = dataclasses.replace(CONFIGS["bounded"], num_heads=heads)
    fn = transform.reference(matmulfree.make(config))
    return str(jax.make_jaxpr(fn)(make_params("bounded"), {"ids": IDS}))

  assert program(1) == program(4)


def test_without_lower_bounds_there_is_no_parameter():
  params = make_params("unbounded, wide state")
  assert "lower_bounds" not in params
  assert params["layers"][0]["attn"]["i"]["weight"].shape == (18, 12)
  assert params["layers"][0]["attn"]["o"]["weight"].shape == (12, 18)


def test_zero_rows_give_zero():
  # A dead channel or an all-zero embedding must not divide by zero.
  name = "one layer, other eps"
  fn = matmulfree.make(CONFIGS[name])
  params = make_params(name)
  params = {**params, "embed": {"weight": 0 * params["embed"]["weight"]}}
  out, state = jax.jit(transform.reference(fn))(
    jax.tree.map(lambda x: np.asarray(x, np.float32), params), {"ids": IDS[0]}
  )
  assert not np.asarray(out.logits).any()
  assert not np.asarray(state["layers"][0]).any()


# --- the reference implementation's own outputs


@pytest.mark.slow
@pytest.mark.parametrize("case", ["h64_l2", "h128_l3_heads4"])
def test_recorded_outputs(shared_dir, case):
  from jaxnmc.io import huggingface

  folder = shared_dir / "golden" / "mmf" / case
  imported = huggingface.read(folder)
  golden = dict(np.load(folder / "golden.npz"))
  ids, cut = golden["input_ids"], golden["decode_prefill_logits"].shape[1]
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
  layers = range(imported.config.num_layers)
  with jax.enable_x64(True):
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), imported.params)
    run = jax.jit(transform.reference(matmulfree.make(imported.config)))
    out, state = run(params, {"ids": ids})
    close(out.logits, golden["f64/logits"])
    for i in layers:
      want = golden[f"f64/state_{i}"].reshape(len(ids), -1)
      close(state["layers"][i], want)
    if "attention_mask" in golden:
      inputs = {"ids": ids, "mask": golden["attention_mask"]}
      close(run(params, inputs)[0].logits, golden["f64/masked_logits"])
    prefill, state = run(params, {"ids": ids[:, :cut]})
    start, rows = state, []
    for t in range(cut, ids.shape[1]):
      out, state = run(params, {"ids": ids[:, t : t + 1]}, state)
      rows.append(out.logits)
    close(np.concatenate(rows, 1), golden["f64/decode_logits"])
    token, state = np.argmax(prefill.logits[:, -1:], -1), start
    for want in golden["greedy_ids"].T:
      np.testing.assert_array_equal(token[:, 0], want)
      out, state = run(params, {"ids": token.astype(np.int32)}, state)
      token = np.argmax(out.logits, -1)
