"""Runs a model the way the recorded arrays were made, on demand.

Each group of arrays (whole forward with its gradients, masked, cached decode,
greedy) is computed once, when the first of its arrays is asked for.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from jaxnmc.errors import CheckpointError
from jaxnmc.io import name_map
from jaxnmc.models.model import Model
from jaxnmc.numerics.ternary import Ternary
from jaxnmc.ops.constants import lower_bounds
from jaxnmc.ops.transform import reference

# Recorded name -> path of our site.
_SITES = (
  (r"embed", "embed"),
  (r"attn_out_(\d+)", "layers.{}.attn.o.out"),
  (r"mlp_out_(\d+)", "layers.{}.mlp.down.out"),
  (r"block_out_(\d+)", "layers.{}.out"),
  (r"final_norm", "final.norm"),
  (r"act_codes_l(\d+)_([ifgo])_proj", "layers.{}.attn.{}.act.codes"),
  (r"act_scale_l(\d+)_([ifgo])_proj", "layers.{}.attn.{}.act.scale"),
  (r"act_codes_l(\d+)_(gate|down)_proj", "layers.{}.mlp.{}.act.codes"),
  (r"act_scale_l(\d+)_(gate|down)_proj", "layers.{}.mlp.{}.act.scale"),
)


def site_of(key: str) -> str | None:
  """The site whose values are recorded as `key`, or None."""
  for pattern, path in _SITES:
    match = re.fullmatch(pattern, key)
    if match:
      return path.format(*match.groups())
  return None


class Replay:
  """One model in one precision (set by the caller's x64 context).

  Args:
    model: what to run.
    arrays: the recorded file: `input_ids`, and `attention_mask`,
      `prefill_len`, `greedy_ids`, `grad_names` where it has them.
    name: file name for messages.
    dtype: "float32" or "float64".
  """

  def __init__(
    self, model: Model, arrays: Mapping[str, np.ndarray], name: str, dtype: str
  ) -> None:
    self._model = model
    self._arrays = arrays
    self._name = name
    self._dtype = np.dtype(dtype)
    self._params = jax.tree.map(self._cast, model.params)
    self._single = arrays["input_ids"].ndim == 1
    self._ids = np.atleast_2d(arrays["input_ids"]).astype(np.int32)
    self._plain = jax.jit(reference(model.fn))
    self._groups: dict[str, Any] = {}

  def _cast(self, leaf: Any) -> jax.Array:
    value = np.asarray(leaf)
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    return jnp.asarray(value.astype(self._dtype) if floating else value)

  def get(self, key: str) -> np.ndarray | str | None:
    """The array recorded as `key` (without `f64/`).

    Returns:
      The array, shaped as it is recorded; a sentence if it cannot be computed
      here; None if the name has no meaning.

    Raises:
      CheckpointError: the recorded greedy arrays disagree on their length.
    """
    for pattern, group, needs in (
      (r"masked_(logits|state_\d+)", self._masked, "attention_mask"),
      (r"decode_(prefill_)?(logits|state_\d+)", self._decode, "prefill_len"),
      (r"greedy_(ids|logits|min_top2_gap)", self._greedy, "prefill_len"),
      (r"logits|state_\d+", self._whole, None),
      (r"grad_l2", self._whole, "grad_names"),
      (r"loss_f64|grad/.+", self._whole, None),
    ):
      if re.fullmatch(pattern, key):
        if needs and needs not in self._arrays:
          return f"needs the array {needs!r}, which is not recorded"
        if key.startswith(("loss", "grad")) and self._gradients_refused():
          return self._gradients_refused()
        return self._pick(group, key)
    if key == "lower_bounds_effective":
      return self._lower_bounds()
    if site_of(key) is None:
      return None
    found = self._pick(self._whole, key)
    return "this model has no such site" if found is None else found

  def _pick(self, group: Callable[[], Any], key: str):
    name = group.__name__
    if name not in self._groups:
      self._groups[name] = group()
    found = self._groups[name]
    if isinstance(found, str):
      return found
    if key not in found:
      return None
    return self._strip(key, found[key])

  def _strip(self, key: str, value: np.ndarray) -> np.ndarray:
    """Without the batch axis if the recorded ids have none."""
    whole = key.startswith(("grad", "loss")) or np.ndim(value) == 0
    return value[0] if self._single and not whole else value

  # --- groups

  def _states(self, prefix: str, state) -> dict[str, np.ndarray]:
    """Recurrent states by head; keys and values of attention have no name."""
    config = self._model.config
    if any(isinstance(layer, Mapping) for layer in state["layers"]):
      return {}
    heads = (len(self._ids), config.num_heads, -1)
    return {
      f"{prefix}state_{i}": np.asarray(h).reshape(heads)
      for i, h in enumerate(state["layers"])
    }

  def _whole(self) -> dict[str, np.ndarray]:
    """Everything of the plain forward, in one program: it compiles once."""
    ids = jnp.asarray(self._ids)
    names = {key.removeprefix("f64/") for key in self._arrays}
    sites = {site_of(key): key for key in names}
    derive = self._gradients_refused() is None and any(
      key.startswith(("grad", "loss")) for key in names
    )

    def forward(params):
      run = reference(self._model.fn, taps=True)
      out, state, taps = run(params, {"ids": ids}, None)
      # What is not returned here is not kept.
      taps = {sites[path]: x for path, x in taps.items() if path in sites}
      loss = jnp.zeros((), self._dtype)
      if derive:
        log = jax.nn.log_softmax(out.logits[:, :-1])
        loss = -jnp.mean(jnp.take_along_axis(log, ids[:, 1:, None], -1))
      return loss, (out.logits, state, taps)

    grads: dict[str, np.ndarray] = {}
    if derive:
      run = jax.jit(jax.value_and_grad(forward, has_aux=True))
      (loss, aux), tree = run(self._params)
      grads = self._gradients(loss, tree)
    else:
      aux = jax.jit(forward)(self._params)[1]
    logits, state, taps = jax.device_get(aux)
    return {"logits": logits, **self._states("", state), **taps, **grads}

  def _masked(self) -> dict[str, np.ndarray]:
    mask = np.atleast_2d(self._arrays["attention_mask"]).astype(np.int32)
    inputs = {"ids": self._ids, "mask": mask}
    out, state = self._plain(self._params, inputs, None)
    found = self._states("masked_", state)
    return {"masked_logits": np.asarray(out.logits), **found}

  def _prefill(self):
    """Logits [B, P, V] and state after the first P tokens."""
    if "prefill" not in self._groups:
      cut = int(self._arrays["prefill_len"].reshape(()))
      inputs = {"ids": self._ids[:, :cut]}
      self._groups["prefill"] = self._plain(self._params, inputs, None)
    out, state = self._groups["prefill"]
    return np.asarray(out.logits), state

  def _step(self, ids: np.ndarray, state):
    """One token more: logits [B, V] and the new state."""
    inputs = {"ids": ids[:, None].astype(np.int32)}
    out, state = self._plain(self._params, inputs, state)
    return np.asarray(out.logits)[:, 0], state

  def _decode(self) -> dict[str, np.ndarray]:
    logits, state = self._prefill()
    found = {"decode_prefill_logits": logits}
    found |= self._states("decode_prefill_", state)
    steps = []
    for column in self._ids[:, logits.shape[1] :].T:
      one, state = self._step(column, state)
      steps.append(one)
    found |= self._states("decode_", state)
    if steps:
      found["decode_logits"] = np.stack(steps, 1)
    return found

  def _greedy(self) -> dict[str, np.ndarray] | str:
    counts = set()
    for key, rank in (("greedy_ids", 2), ("greedy_logits", 3)):
      shape = self._arrays[key].shape if key in self._arrays else ()
      if len(shape) == rank - self._single:
        counts.add(shape[1 - self._single])
    if not counts:
      return "needs 'greedy_ids' or 'greedy_logits' to know how many steps"
    if len(counts) > 1:
      raise CheckpointError(
        f"{self._name}: 'greedy_ids' and 'greedy_logits' hold different numbers"
        f" of steps, {sorted(counts)}"
      )
    logits, state = self._prefill()
    current = logits[:, -1]
    ids: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    for step in range(counts.pop()):
      if step:
        current, state = self._step(ids[-1], state)
      rows.append(current)
      ids.append(current.argmax(-1))
    top = np.sort(np.stack(rows, 1), axis=-1)
    return {
      "greedy_ids": np.stack(ids, 1),
      "greedy_logits": np.stack(rows, 1),
      "greedy_min_top2_gap": (top[..., -1] - top[..., -2]).min(),
    }

  def _lower_bounds(self) -> np.ndarray | str:
    raw = self._params.get("lower_bounds")
    if raw is None:
      return "this model has no lower bounds"
    return np.asarray(lower_bounds(raw))

  def _gradients_refused(self) -> str | None:
    is_ternary = lambda x: isinstance(x, Ternary)
    leaves = jax.tree.leaves(self._params, is_leaf=is_ternary)
    if any(is_ternary(x) for x in leaves):
      return "the model holds ternary codes; there are no latents to derive by"
    if self._ids.shape[1] < 2:
      return "the loss needs two tokens"
    return None

  def _gradients(self, loss, tree) -> dict[str, np.ndarray]:
    by_key = {
      entry.key: np.asarray(name_map.get(tree, entry.path))
      for entry in name_map.entries(self._model.config)
    }
    found = {f"grad/{key}": grad for key, grad in by_key.items()}
    found["loss_f64"] = np.asarray(loss)
    if "grad_names" in self._arrays:
      found["grad_l2"] = self._norms(by_key)
    return found

  def _norms(self, by_key: Mapping[str, np.ndarray]) -> np.ndarray:
    names = [str(key) for key in self._arrays["grad_names"]]
    # The recorded norms are those of the gradients as they are stored.
    stored = (by_key[key].astype(np.float32) for key in names)
    return np.array([np.linalg.norm(g.astype(np.float64)) for g in stored])
