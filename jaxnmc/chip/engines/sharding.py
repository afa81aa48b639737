"""How the stepped machine is spread over devices.

Every class of populations is split along its members (layers), or along its
tiles (cores) where that leaves less padding; synapses lie where their target
is.  So a device has whole layers, with their chips, or parts of a population
that is larger than a layer, like the head.  Once per step, between the neuron
programs and the synapses, the messages that leave a device are gathered; what
stays inside a device is not exchanged.  Slots beyond the last member or tile
are padding: they hold no neurons, so they neither send nor count.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnmc.chip.engines import delivery
from jaxnmc.chip.engines.machine import Class, Group, Machine
from jaxnmc.errors import PlanError

# A named value of a class: (class index, instruction index).
Value = tuple[int, int]
# In place of an axis: not split.
WHOLE = -1


@dataclasses.dataclass(frozen=True, eq=False)
class ClassSplit:
  """How one class is split.

  Attributes:
    axis: 0 along its members, 1 along its tiles.
    slots: place of each member, int[M].
    shape: (members, tiles) with padding, over all devices.
    per: members of one device.
  """

  axis: int
  slots: np.ndarray
  shape: tuple[int, int]
  per: int


@dataclasses.dataclass(frozen=True, eq=False)
class GroupSplit:
  """How the synapses of one group are split: rows are its pairs, padded.

  Attributes:
    axis: that of the target class.
    rows: row of each pair, int[P].
    src: slot of the source of each row; counted on the device if `local`.
    dst: slot of the target on its device; one past the last for padding.
    local: all sources are on the device of their targets.
  """

  axis: int
  rows: np.ndarray
  src: np.ndarray
  dst: np.ndarray
  local: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
  """A machine on devices.

  Attributes:
    machine: what is stepped.
    mesh: devices, or None for one.
    classes: how each class is split.
    groups: how each group is split.
    sent: values that cross synapses: their messages are counted.
    gathered: values that every device needs.
    packed: dense groups whose weights are held in two bits (`delivery`).
    wide: dense groups whose weights are held in int8.
  """

  machine: Machine
  mesh: Mesh | None
  classes: tuple[ClassSplit, ...]
  groups: tuple[GroupSplit, ...]
  sent: tuple[Value, ...]
  gathered: frozenset[Value]
  packed: frozenset[int]
  wide: frozenset[int]

  @property
  def devices(self) -> int:
    """Number of devices."""
    return 1 if self.mesh is None else self.mesh.size

  @property
  def name(self) -> str | None:
    """The axis of the mesh."""
    return None if self.mesh is None else self.mesh.axis_names[0]

  def spec(self, axis: int) -> PartitionSpec:
    """Split along an axis; `WHOLE`: the same on all devices."""
    if axis == WHOLE or self.mesh is None:
      return PartitionSpec()
    return PartitionSpec(*(None,) * axis, self.name)

  def put(self, array: np.ndarray, axis: int) -> jax.Array:
    """An array on the devices, each with its part only."""
    if self.mesh is None:
      return jax.numpy.asarray(array)
    sharding = NamedSharding(self.mesh, self.spec(axis))
    return jax.make_array_from_callback(
      array.shape, sharding, lambda part: array[part]
    )

  def fetch(self, tree: Any) -> Any:
    """NumPy arrays of arrays on the devices, whole in every process."""
    return jax.device_get(tree if self.mesh is None else self._whole(tree))

  @functools.cached_property
  def _whole(self):
    assert self.mesh is not None
    same = NamedSharding(self.mesh, PartitionSpec())
    return jax.jit(lambda tree: tree, out_shardings=same)

  def lay(self, index: int, array: np.ndarray) -> np.ndarray:
    """Puts members and tiles of a class at their slots.

    Args:
      index: class.
      array: [M, K, ...].

    Returns:
      [slots, padded tiles, ...], zero where there is none.
    """
    split = self.classes[index]
    return _padded(array, split.slots, split.shape)

  def lay_members(self, index: int, array: np.ndarray) -> np.ndarray:
    """Puts members of a class at their slots: [M, ...] -> [slots, ...]."""
    return self.lay(index, array[:, None])[:, 0]

  def lay_rows(self, index: int, array: np.ndarray | None) -> np.ndarray:
    """Puts pairs and target tiles of a group at their rows.

    Args:
      index: group.
      array: [P, K, ...]; of a dense group, so there is one.

    Returns:
      [rows, padded tiles, ...], zero where there is none.
    """
    split = self.groups[index]
    tiles = self.classes[self.machine.groups[index].target].shape[1]
    assert array is not None
    return _padded(array, split.rows, (len(split.src), tiles))


def _padded(array: np.ndarray, at: np.ndarray, shape: tuple[int, int]):
  """Rows of array at some rows of zeros [shape, ...]."""
  if array.shape[:2] == shape:
    return array  # nothing is padded, so the rows are in order
  out = np.zeros((*shape, *array.shape[2:]), array.dtype)
  out[at, : array.shape[1]] = array
  return out


def mesh_of(mesh) -> Mesh:
  """The devices of a mesh along one axis that `shard_map` may use.

  Args:
    mesh: `jax.sharding.Mesh`.

  Returns:
    The same devices, in the same order.

  Raises:
    PlanError: no mesh, or one with other than one axis.
  """
  if not isinstance(mesh, Mesh):
    raise PlanError(
      f"mesh must be a jax.sharding.Mesh; found {type(mesh).__name__}; make one"
      ' with jax.make_mesh((devices,), ("chips",))'
    )
  if len(mesh.axis_names) != 1:
    axes = ", ".join(f"{k}: {n}" for k, n in mesh.shape.items())
    raise PlanError(
      f"mesh must have one axis, along which the chips are split; found {axes};"
      ' make one with jax.make_mesh((devices,), ("chips",))'
    )
  return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,))


def spread(machine: Machine, mesh=None, checked: bool = False) -> Spread:
  """Splits a machine.

  Args:
    machine: result of `build`.
    mesh: mesh with one axis, or None for the default device.
    checked: sums are checked, for which weights are held in int8.

  Returns:
    What lies where.

  Raises:
    PlanError: see `mesh_of`.
  """
  mesh = None if mesh is None else mesh_of(mesh)
  devices = 1 if mesh is None else mesh.size
  numbers = {n for c in machine.classes for n in c.layers if n is not None}
  order = {layer: i for i, layer in enumerate(sorted(numbers))}
  classes = tuple(_class(c, devices, order) for c in machine.classes)
  groups = tuple(_group(g, classes, devices) for g in machine.groups)
  sent = dict.fromkeys(
    (g.source, g.value) for g in machine.groups if g.source is not None
  )
  leaving = [
    machine.source(machine.routes[i].synapse) for i in machine.host_routes
  ]
  sent |= dict.fromkeys((c, value) for c, _, value in leaving)
  gathered = set()
  if devices > 1:
    gathered |= {
      (g.source, g.value)
      for g, split in zip(machine.groups, groups)
      if g.source is not None and not split.local
    }
    gathered |= {(tap.cls, tap.value) for tap in machine.taps}
  dense = {i for i, g in enumerate(machine.groups) if g.kind == "dense"}
  small = {i for i in dense if delivery.packs(machine.groups[i])}
  return Spread(
    *(machine, mesh, classes, groups, tuple(sent), frozenset(gathered)),
    packed=frozenset(small),
    wide=frozenset(dense if checked else dense - small),
  )


def _up(number: int, devices: int) -> int:
  """Share of one device, rounded up."""
  return -(-number // devices)


def _class(cls: Class, devices: int, order: dict[int, int]) -> ClassSplit:
  members, tiles = len(cls.members), cls.tiles
  slots = np.arange(members)
  per = _up(members, devices)
  if per * tiles > members * _up(tiles, devices):
    shape = (members, _up(tiles, devices) * devices)
    return ClassSplit(1, slots, shape, members)
  # Where it takes no more room, a member lies at the place of its layer, so
  # that all of a layer is on one device though some class lacks a member.
  if devices > 1 and _up(len(order), devices) == per and None not in cls.layers:
    slots = np.array([order[n] for n in cls.layers if n is not None])
  return ClassSplit(0, slots, (per * devices, tiles), per)


def _group(
  group: Group, classes: tuple[ClassSplit, ...], devices: int
) -> GroupSplit:
  target = classes[group.target]
  dst = target.slots[group.dst]
  src = np.zeros(len(dst), int)
  source = None if group.source is None else classes[group.source]
  if source is not None:
    src = source.slots[group.src]
  if target.axis == 1 or devices == 1:
    rows = np.arange(len(dst))
    local = source is None or devices == 1
    return _as_int32(target.axis, rows, src, dst, local)
  owner = dst // target.per
  local = source is None
  if source is not None and source.axis == 0:
    local = bool((src // source.per == owner).all())
    src = src - owner * source.per if local else src
  width = int(np.bincount(owner).max())
  rank = np.array([(owner[:i] == o).sum() for i, o in enumerate(owner)])
  rows = owner * width + rank
  all_src = np.zeros(devices * width, int)
  all_dst = np.full(devices * width, target.per)
  all_src[rows], all_dst[rows] = src, dst - owner * target.per
  return _as_int32(0, rows, all_src, all_dst, local)


def _as_int32(axis, rows, src, dst, local) -> GroupSplit:
  return GroupSplit(
    axis, rows, src.astype(np.int32), dst.astype(np.int32), local
  )
