"""Hugging Face folders of GPT-2 and Llama: out and in again."""

import functools
import json

import numpy as np
import pytest

from jaxnmc.errors import ConfigError
from jaxnmc.io import huggingface
from jaxnmc.io import safetensors_files as folders
from jaxnmc.io.load import load
from jaxnmc.models import gpt, matmulfree
from tests.io import hf_gpt


@pytest.fixture
def make(tmp_path):
  """make(fields, tensors, name="model") -> folder."""
  return functools.partial(hf_gpt.write, tmp_path)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_out_and_in_again(make, tmp_path, kind):
  fields, tensors = (
    (hf_gpt.GPT2, hf_gpt.gpt2_tensors(hf_gpt.GPT2))
    if kind == "gpt2"
    else (hf_gpt.LLAMA, hf_gpt.llama_tensors(hf_gpt.LLAMA))
  )
  model = load(make(fields, tensors))
  for name, size in (("one", None), ("shards", 2000)):
    out = tmp_path / name
    huggingface.write(out, model.config, model.params, shard_bytes=size)
    assert len(list(out.glob("*.safetensors"))) > 1 or size is None
    again = load(out)
    assert again.config == model.config
    hf_gpt.same(again.params, model.params)
  found = hf_gpt.safetensors_numpy.load_file(tmp_path / "one" / folders.SINGLE)
  hf_gpt.same(found, tensors)
  data = json.loads((tmp_path / "one" / "config.json").read_text())
  assert data["model_type"] == kind
  same = {k: v for k, v in data.items() if k in fields}
  assert same == {k: fields[k] for k in same}


def test_what_has_no_such_form_is_not_written(tmp_path):
  for config, words in (
    (gpt.Config(ternary=True), "no gpt2: mlp = 'swiglu'.*no llama: ternary"),
    (gpt.Config(rotary_pairs="neighbours"), "no llama: rotary_pairs"),
    (gpt.Config(norm="layer", mlp="gelu"), "no gpt2: norm|no gpt2: position"),
  ):
    with pytest.raises(ConfigError, match=words):
      huggingface.write(tmp_path / "x", config, {})
  assert not list(tmp_path.iterdir())
  assert huggingface.LAYOUTS["hgrn_bit"].misfit(matmulfree.Config()) is None


# --- beside the library that defines them


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_transformers_computes_the_same(tmp_path, kind):
  torch = pytest.importorskip("torch", reason="needs torch and transformers")
  library = pytest.importorskip("transformers", reason="needs transformers")
  torch.manual_seed(0)
  names = {"gpt2": ("GPT2", hf_gpt.GPT2), "llama": ("Llama", hf_gpt.LLAMA)}[
    kind
  ]
  fields = {k: v for k, v in names[1].items() if k != "model_type"}
  if kind == "llama":
    fields.pop("rope_theta")
    fields.pop("rope_scaling")
    fields["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0}
  made = getattr(library, f"{names[0]}Config")(**fields)
  theirs = library.AutoModelForCausalLM.from_config(made)
  with torch.no_grad():
    for p in theirs.parameters():
      p.add_(0.3 * torch.randn_like(p))
  theirs.save_pretrained(tmp_path / "theirs")
  model = load(tmp_path / "theirs")
  ids = torch.tensor(hf_gpt.IDS.astype(np.int64))[None]
  compute = lambda net: net.double().eval()(ids).logits[0].detach().numpy()
  # Its norms and rotary positions are float32 whatever the model is.
  gap = {"gpt2": 1e-9, "llama": 3e-6}[kind]
  np.testing.assert_allclose(
    hf_gpt.logits_of(model), compute(theirs), rtol=0, atol=gap
  )
  huggingface.write(tmp_path / "ours", model.config, model.params)
  again = type(theirs).from_pretrained(tmp_path / "ours")
  np.testing.assert_allclose(
    compute(again), compute(theirs), rtol=0, atol=1e-12
  )
