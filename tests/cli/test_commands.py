"""Commands on a tiny model: what they print, write and refuse."""

import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

import jaxnmc
from jaxnmc.cli import parser
from jaxnmc.kernels import native

COMMANDS = (
  *("demo", "run", "verify", "info", "evaluate", "place", "doctor", "bench"),
  *("diverge", "plan", "bits", "build-kernels"),
)
TEXT = "Once there was a cat.\n<|endoftext|>\nThe end.\n"


@pytest.fixture
def text(tmp_path):
  """A file of two documents."""
  path = tmp_path / "text.txt"
  path.write_text(TEXT)
  return path


@pytest.mark.parametrize(
  "command",
  [
    *(c for c in COMMANDS if c != "plan"),
    *("plan make", "plan cost", "plan show", "plan diff"),
  ],
)
def test_help_names_the_flags(run, command):
  status, out, _ = run(*command.split(), "--help")
  assert status == 0
  assert "--json" in out
  assert max(len(line) for line in out.splitlines()) <= 80


def test_help_needs_no_jax():
  code = (
    "import sys, runpy; sys.argv = ['jaxnmc', '--help']\n"
    "try: runpy.run_module('jaxnmc', run_name='__main__')\n"
    "except SystemExit as stop: assert not stop.code\n"
    "from jaxnmc.cli import parser\n"
  )
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert all(command in done.stdout for command in COMMANDS)
  assert time.perf_counter() - start < 60  # a hang, not a speed


def test_version(run):
  assert run("--version")[1].strip() == jaxnmc.__version__


def test_info(run, as_json, folders):
  status, out, _ = run("info", folders["tiny"])
  assert status == 0
  assert "ternary" in out
  assert max(len(line) for line in out.splitlines()) <= 80
  data = as_json("info", folders["tiny"])
  assert (
    data["parameters"]["total"]
    == jaxnmc.load(folders["tiny"]).config.num_params
  )


def test_evaluate_backends_agree(as_json, folders, text, tmp_path):
  target = tmp_path / "out.json"
  one = as_json("evaluate", folders["tiny"], "--text", text)
  assert one["ids"] == one["bytes"] == len("Once there was a cat.The end.")
  assert one["logits_sha256"] is None
  assert one["label"] == "measured"
  two = as_json(
    *("evaluate", folders["tiny"], "--text", text, "--backend", "fixed")
  )
  assert two["perplexity"] == pytest.approx(one["perplexity"], rel=0.05)
  assert two["plan_sha256"]
  assert two["text_sha256"] == one["text_sha256"]
  assert {"jax", "jaxnmc"} <= set(two["versions"])
  assert not target.exists()


def test_evaluate_ranges_and_files(run, folders, text, tmp_path):
  ranges, target = tmp_path / "range.json", tmp_path / "out.json"
  ranges.write_text("[4, 3]")
  status, out, _ = run(
    *("evaluate", folders["tiny"], "--text", text, "--prefix-bytes", ranges),
    *("--json", target, "--max_documents", 1),
  )
  assert status == 0
  assert json.loads(out) == json.loads(target.read_text())
  assert json.loads(out)["bytes"] == 4


def test_doctor_lists_sites(as_json, folders, text):
  data = as_json("doctor", folders["tiny"], "--text", text)
  assert all(data["kernels"].values())
  there = native.available()
  assert ("native walk" in data["kernels"]) == there
  assert "hf" in data["extras"]
  sites = {row["site"] for row in data["model"]["sites"]}
  assert {"layers.0.attn.mlgru.h", "layers.0.mlp.glu"} <= sites


def test_diverge_names_the_first_site(run, as_json, folders, text):
  data = as_json("diverge", folders["tiny"], "--text", text)
  assert data["first"] is None
  assert data["between"] == ["fixed", "graph"]
  status, out, _ = run(
    *("diverge", folders["tiny"], "--text", text, "--tokens", 3),
    *("--between", "float", "fixed", "--codes", 0.001),
  )
  assert status == 1
  assert "in float," in " ".join(out.split())
  assert max(len(line) for line in out.splitlines() if ":" not in line) <= 80


def test_place_says_why_not(run, as_json, refused, folders):
  status, out, err = run("place", folders["bare"])
  assert status == 0
  assert "brings no plan" in err
  assert max(len(line) for line in out.splitlines() if "," not in line) <= 80
  data = as_json("place", folders["tiny"], "--chips", 1)
  assert data["chips_used"] == 1
  assert data["steps_per_token"] > 10


def test_calibrate_from_a_file(run, folders, text):
  status, _, err = run("place", folders["bare"], "--calibrate", text)
  assert status == 0
  assert "formats were chosen on" in err


@pytest.fixture
def recorded(folders, tmp_path):
  """A reference file made from the model itself."""
  model = jaxnmc.load(folders["tiny"])
  ids = np.array([[1, 70, 80, 90]], np.int32)
  logits = jaxnmc.reference(model.fn)(model.params, {"ids": ids})[0].logits
  path = tmp_path / "reference.npz"
  np.savez(path, input_ids=ids, logits=np.asarray(logits))
  return path


def test_verify_is_one_line_and_a_status(folders, recorded, tmp_path):
  # In a process of its own: the command turns x64 on.
  wrong = tmp_path / "wrong.npz"
  with np.load(recorded) as file:
    np.savez(wrong, input_ids=file["input_ids"], logits=file["logits"] + 1)
  for path, status in ((recorded, 0), (wrong, 1)):
    done = subprocess.run(
      [sys.executable, "-m", "jaxnmc", "verify", folders["tiny"], str(path)],
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == status, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["ok"] is (status == 0)


def test_flags_are_refused_in_one_line(refused, folders, text, tmp_path):
  tiny = folders["tiny"]
  story = ("run", tiny, "--prompt", "A", "--tokens")
  assert "invalid choice: 'dream'" in refused("dream")
  assert "positive integer" in refused(*story, "0")
  assert "--backend" in refused(*story, "1", "--backend", "gpu")
  assert "temperature" in refused(*story, "1", "--temperature", "-1")
  assert "temperature" in refused(*story, "1", "--temperature", "nan")
  assert "top_p" in refused(*story, "1", "--top_p", "0")
  assert "--top_k 999" in refused(*story, "1", "--top_k", "999")
  assert "prompt is empty" in refused("run", tiny, "--prompt", "")
  assert "surrogate" in refused("run", tiny, "--prompt", "\udc80")
  assert "neither a model" in refused("info", "no-such-model")
  assert "nothing.txt" in refused("evaluate", tiny, "--text", "nothing.txt")
  missing = tmp_path / "no" / "out.json"
  assert "does not exist" in refused("info", tiny, "--json", missing)
  assert "is a folder" in refused("info", tiny, "--json", tmp_path)
  assert not missing.parent.exists()
  assert "at least 5" in refused("bench", "--quick", "--repeats", "2")


def test_unexpected_errors_keep_their_traceback(monkeypatch, run, folders):
  def broken(name):
    raise RuntimeError("a bug")

  monkeypatch.setattr(jaxnmc, "load", broken)
  with pytest.raises(RuntimeError, match="a bug"):
    run("info", folders["tiny"])


def test_interrupt_is_a_status(monkeypatch, run, folders):
  def stop(name):
    raise KeyboardInterrupt

  monkeypatch.setattr(jaxnmc, "load", stop)
  assert run("info", folders["tiny"])[0] == 130


def test_both_spellings_of_a_flag():
  args = parser.build().parse_args(["demo", "--top-k", "3", "--top_p", "0.5"])
  assert (args.top_k, args.top_p) == (3, 0.5)


def test_kernels_are_built_ahead(as_json, monkeypatch, tmp_path, run):
  if native._compiler() is None:
    pytest.skip("no C++ compiler here")
  # All of them are built and loaded here; the rest is about one file of them.
  there = native.path()
  (one,) = (path for path in native.sources() if path.name == "read.cc")
  monkeypatch.setattr(native, "sources", lambda: (one,))
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  data = as_json("build-kernels")
  assert data["library"].startswith(str(tmp_path))
  assert b"JaxnmcRead" in pathlib.Path(data["library"]).read_bytes()
  assert data["instructions"] == there
  assert there in native.PATHS
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
  monkeypatch.setenv("PATH", "")
  monkeypatch.delenv("CXX", raising=False)
  status, _, err = run("build-kernels")
  assert status == 2
  assert "no C++ compiler found" in err
