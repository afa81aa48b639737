"""Builds tests/io/golden from `numpy_reference`: python tests/io/make_golden.py

Seeds are searched for weights and ids that keep every value before a rounding
away from a tie, so that float32 and float64 round alike.
"""

import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from tests.io import numpy_reference as ref

FOLDER = pathlib.Path(__file__).parent / "golden"
CONFIG = {
  "architectures": ["HGRNBitForCausalLM"],
  "attn_mode": "fused_recurrent",
  "bos_token_id": 1,
  "eos_token_id": 2,
  "expand_ratio": 1,
  "hidden_act": "swish",
  "hidden_ratio": 4,
  "hidden_size": 16,
  "initializer_range": 0.02,
  "intermediate_size": 24,
  "model_type": "hgrn_bit",
  "num_heads": 2,
  "num_hidden_layers": 3,
  "rms_norm_eps": 1e-06,
  "tie_word_embeddings": False,
  "torch_dtype": "float32",
  "use_lower_bound": True,
  "use_short_conv": False,
  "vocab_size": 20,
}
PREFILL, STEPS = 2, 4
SINGLE = ("act_codes", "greedy_ids")
DOUBLE = ("logits", "block_out", "final_norm", "lower_bounds", "state")


def draw(seed):
  """Weights of float32 precision with gains, bounds and scales all random."""
  rng = np.random.default_rng(seed)
  weights = {}
  for name, shape in ref.shapes(CONFIG).items():
    if len(shape) == 1:
      w = 1 + 0.3 * rng.standard_normal(shape)
    elif name in ("model.embeddings.weight", "model.lower_bounds"):
      w = rng.standard_normal(shape)
    else:
      w = np.exp(rng.uniform(-1, 0.5)) * rng.standard_normal(shape)
    weights[name] = w.astype(np.float32).astype(np.float64)
  ids = rng.integers(0, CONFIG["vocab_size"], (2, 6)).astype(np.int32)
  mask = np.ones_like(ids)
  mask[1, :2] = 0
  return weights, ids, mask


def margin(seed):
  weights, ids, mask = draw(seed)
  found, net = ref.record(CONFIG, weights, ids, mask, PREFILL, STEPS)
  gap = float(found["greedy_min_top2_gap"])
  return min(net.margin, 50 * net.weight_margin, gap / 100)


def build(seeds=400):
  from safetensors.numpy import save_file

  best = max(range(seeds), key=margin)
  print("seed", best, "margin", margin(best))
  weights, ids, mask = draw(best)
  found, _ = ref.record(CONFIG, weights, ids, mask, PREFILL, STEPS)
  loss, grads = ref.gradients(CONFIG, weights, ids)
  arrays = {
    "input_ids": ids,
    "attention_mask": mask,
    "prefill_len": np.int32(PREFILL),
    "loss_f64": loss.real,
    "grad_names": np.array(sorted(grads)),
  }
  for name, value in found.items():
    kind = np.int8 if name.startswith("act_codes") else np.float32
    kind = np.int32 if name == "greedy_ids" else kind
    arrays[name] = np.asarray(value).astype(kind)
    prefill = name.startswith("decode_prefill")
    if any(word in name for word in DOUBLE) and not prefill:
      arrays["f64/" + name] = value
  stored = {name: g.astype(np.float32) for name, g in grads.items()}
  arrays["grad_l2"] = np.array(
    [np.linalg.norm(stored[n].astype(np.float64)) for n in sorted(grads)]
  )
  for name, g in stored.items():
    if g.ndim == 1 or g.size <= 256:
      arrays["grad/" + name] = g
  FOLDER.mkdir(exist_ok=True)
  save_file(
    {n: np.ascontiguousarray(w, np.float32) for n, w in weights.items()},
    FOLDER / "model.safetensors",
    metadata={"format": "pt"},
  )
  np.savez_compressed(FOLDER / "golden.npz", **arrays)
  text = json.dumps(CONFIG, indent=2) + "\n"
  (FOLDER / "config.json").write_text(text)


if __name__ == "__main__":
  build()
