"""The machine on several devices: the same bits, less memory on each."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxnmc as nmc
from jaxnmc.chip.engines import sharding
from jaxnmc.errors import PlanError
from tests.chip.engines import sharded
from tests.chip.mini import mini

SAME = ("out", "state", "counters", "synops")


def start(model, devices, here, *distributed):
  """The program `sharded` with `here` virtual CPU devices."""
  flag = f"--xla_force_host_platform_device_count={here}"
  env = os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"}
  command = [
    sys.executable,
    "-m",
    "tests.chip.engines.sharded",
    model,
    str(devices),
  ]
  return subprocess.Popen(
    [*command, *distributed],
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def answer(process, seconds=500):
  try:
    out, err = process.communicate(timeout=seconds)
  finally:
    process.kill()
  assert process.returncode == 0, err[-3000:]
  return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def alone():
  """The same run on one device, in this process."""
  return sharded.result(*sharded.engine("mini"))


def test_eight_devices_give_the_bits_of_one(alone):
  found = answer(start("mini", 8, 8))
  assert {k: found[k] for k in SAME} == {k: alone[k] for k in SAME}
  assert alone["synops"] > 0
  assert len(found["bytes"]) == 8
  # An eighth, and padding: of 6 layers, of tiles, and int32 state.
  assert max(found["bytes"]) < 0.3 * alone["bytes"][0]


def test_two_processes_give_the_bits_of_one_device(alone):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  pair = [start("mini", 4, 2, address, "2", str(i)) for i in range(2)]
  for found in [answer(process) for process in pair]:
    assert found["processes"] == 2
    assert {k: found[k] for k in SAME} == {k: alone[k] for k in SAME}
    assert len(found["bytes"]) == 2
    assert max(found["bytes"]) < 0.5 * alone["bytes"][0]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 3, 8])
def test_the_language_model_on_devices(devices):
  """Classes of 1, 5 and 6 layers: along layers and along tiles."""
  alone = sharded.result(*sharded.engine("lm"))
  found = answer(start("lm", devices, devices))
  assert {k: found[k] for k in SAME} == {k: alone[k] for k in SAME}
  assert found["axes"] == [0, 1]


def machine():
  """The machine of a placed network of six layers."""
  run, _ = sharded.engine("mini")
  return run.machine


def test_what_a_device_holds_is_its_share():
  """Every real member and tile has one place, and so has every pair."""
  built = machine()
  for devices in (2, 3, 4, 8):
    classes = [sharding._class(c, devices, order(built)) for c in built.classes]
    for cls, split in zip(built.classes, classes):
      assert len(set(split.slots)) == len(cls.members)
      assert split.shape[split.axis] % devices == 0
      assert split.slots.max() < split.shape[0]
      held = split.shape[0] * split.shape[1] // devices
      share = len(cls.members) * cls.tiles / devices
      assert held <= share + max(cls.tiles, len(cls.members))
    for group in built.groups:
      split = sharding._group(group, tuple(classes), devices)
      target = classes[group.target]
      assert len(set(split.rows)) == len(group.dst)
      back = split.dst[split.rows]
      if target.axis == 0:
        back = back + split.rows // (len(split.src) // devices) * target.per
      np.testing.assert_array_equal(back, target.slots[group.dst])
      padding = np.setdiff1d(np.arange(len(split.dst)), split.rows)
      assert (split.dst[padding] == target.per).all()


def order(built):
  numbers = {n for c in built.classes for n in c.layers if n is not None}
  return {layer: i for i, layer in enumerate(sorted(numbers))}


def test_layers_that_lack_a_member_stay_beside_the_others():
  """Six layers on three devices, a class of the last five: same devices."""
  run, _ = sharded.engine("mini")
  built = run.machine
  split = {}
  for cls in built.classes:
    layers = [n for n in cls.layers if n is not None]
    if len(layers) > 1:
      found = sharding._class(cls, 3, order(built))
      if found.axis == 0:
        split |= dict(zip(layers, (found.slots // found.per).tolist()))
  assert all(device == layer // 2 for layer, device in split.items())


@pytest.mark.parametrize(
  ("mesh", "says"),
  [
    ("chips", "must be a jax.sharding.Mesh; found str"),
    ({"a": 1, "b": 1}, "must have one axis.*found a: 1, b: 1"),
  ],
)
def test_bad_meshes_are_refused(mesh, says):
  net = mini(1, 5)
  placed = nmc.place(net.graph, nmc.chip.loihi2())
  if isinstance(mesh, dict):
    mesh = jax.make_mesh(tuple(mesh.values()), tuple(mesh))
  with pytest.raises(PlanError, match=says):
    net.loihi(placed, engine="stepped", mesh=mesh)


def test_the_functional_engine_takes_no_mesh():
  net = mini(1, 5)
  placed = nmc.place(net.graph, nmc.chip.loihi2())
  with pytest.raises(PlanError, match="functional engine runs on one device"):
    net.loihi(placed, mesh=jax.make_mesh((1,), ("chips",)))
