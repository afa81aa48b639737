"""Checkpoints: damaged ones are set aside, foreign ones refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc.errors import CheckpointError
from jaxnmc.train import checkpoints, export

FINGERPRINT = {"model": {"hidden_size": 4}, "stream": "abc"}


def _state(value):
  return {
    "step": jnp.int32(value),
    "params": [jnp.full((3, 4), value, jnp.float32)],
  }


def _store(path, fingerprint=FINGERPRINT):
  return checkpoints.Checkpoints(path, fingerprint)


@pytest.fixture
def filled(tmp_path):
  store = _store(tmp_path)
  for step in (1, 2, 3):
    store.save(step, _state(step), {"best": step})
  store.close()
  return tmp_path


def _step(restored):
  return int(restored[0]["step"])


def test_round_trip(filled):
  assert sorted(p.name for p in (filled / "checkpoints").iterdir()) == [
    "2",
    "3",
  ]
  state, extra = _store(filled).restore(_state(0))
  jax.tree.map(np.testing.assert_array_equal, state, _state(3))
  assert extra == {"best": 3}
  assert state["params"][0].sharding == _state(0)["params"][0].sharding


def test_empty(tmp_path):
  assert _store(tmp_path).restore(_state(0)) is None


def test_half_written_folder_is_ignored(filled):
  half = filled / "checkpoints" / "4.orbax-checkpoint-tmp-17"
  shutil.copytree(filled / "checkpoints" / "3" / "state", half / "state")
  store = _store(filled)
  assert not half.exists()
  assert _step(store.restore(_state(0))) == 3


@pytest.mark.parametrize("what", ["state", "meta", "flip", "empty"])
def test_damaged_checkpoint_is_set_aside(filled, what):
  newest = filled / "checkpoints" / "3"
  if what == "empty":
    shutil.rmtree(newest)
    newest.mkdir()
  elif what == "flip":
    # The arrays are readable, but not what was saved.
    path = newest / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["digest"] = "0" * 64
    path.write_text(json.dumps(meta))
  else:
    for path in (newest / what).rglob("*"):
      if path.is_file():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  store = _store(filled)
  assert _step(store.restore(_state(0))) == 2
  # Nothing is thrown away, and the number is free again.
  assert (filled / "damaged" / "3").is_dir()
  store.save(3, _state(3), {"best": 0})
  store.close()
  assert _step(_store(filled).restore(_state(0))) == 3


def test_all_damaged(filled):
  for step in ("2", "3"):
    shutil.rmtree(filled / "checkpoints" / step / "state")
  with pytest.raises(CheckpointError, match="none of the checkpoints"):
    _store(filled).restore(_state(0))
  assert sorted(p.name for p in (filled / "damaged").iterdir()) == ["2", "3"]


def test_another_run_is_refused(filled):
  other = {**FINGERPRINT, "stream": "xyz"}
  with pytest.raises(CheckpointError, match="'abc', now 'xyz'"):
    _store(filled, other).restore(_state(0))
  assert _step(_store(filled).restore(_state(0))) == 3


# --- exported parameters


def test_export_round_trip(tmp_path):
  params = {
    "layers": [{"norm": np.ones(3, np.float32)} for _ in range(11)],
    "head": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)},
  }
  params["layers"][10]["norm"] *= 7
  export.save(tmp_path / "final.npz", params, {"config": {"a": 1}})
  got, meta = export.load(tmp_path / "final.npz")
  assert jax.tree.structure(got) == jax.tree.structure(params)
  jax.tree.map(np.testing.assert_array_equal, got, params)
  assert meta["config"] == {"a": 1}


def test_export_is_whole_or_absent(tmp_path, monkeypatch):
  path = tmp_path / "best.npz"
  export.save(path, {"a": np.ones(2)}, {})
  before = path.read_bytes()

  def fail(file, **arrays):
    file.write(b"half")
    raise OSError("disk full")

  with monkeypatch.context() as patch:
    patch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
      export.save(path, {"a": np.zeros(2)}, {})
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["best.npz"]
  (tmp_path / ".best.npz.x1y2").write_bytes(b"of a killed process")
  export.remove_unfinished(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["best.npz"]


def test_export_refuses_damage(tmp_path):
  path = tmp_path / "best.npz"
  export.save(path, {"a": np.ones(200)}, {})
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(CheckpointError, match="copy it again"):
    export.load(path)
  with pytest.raises(CheckpointError, match="no such file"):
    export.load(tmp_path / "absent.npz")
  np.savez(path, a=np.ones(2))
  with pytest.raises(CheckpointError, match="meta"):
    export.load(path)
  np.savez(path, meta=np.array("{}"))
  with pytest.raises(CheckpointError, match="jaxnmc-float-1"):
    export.load(path)
