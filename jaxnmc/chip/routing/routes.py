"""Where cores and chips lie, and which links a message takes between them.

On a chip, messages go along the rows of a mesh of routers first, then along a
column (X-Y). Between chips they go through ports, one dimension after the
other. What is published and what is assumed: `ROUTE_FACTS`.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping

import numpy as np

from jaxnmc.chip.hardware import Fact, Hardware
from jaxnmc.chip.systems import CHIPS
from jaxnmc.errors import UserError

__all__ = ["CHIP_GRIDS", "DIRECTIONS", "Grid", "Link", "Mesh"]
__all__ += ["ROUTE_FACTS", "layout", "route"]

_BRIEF = "Intel, Loihi 2 technology brief, 2021"
_MESH = f"{_BRIEF}; Timcheck et al. 2026: 8 x 4 routers x 4 cores"
_PROFILE = "public lava-dl YOLO profiling script of an Intel user"

ROUTE_FACTS: Mapping[str, Fact] = types.MappingProxyType(
  {
    "mesh_columns": Fact(8, "routers", _MESH),
    "mesh_rows": Fact(4, "routers", _MESH),
    "cores_per_router": Fact(4, "cores", _MESH),
    "fabrics": Fact(
      2,
      "meshes",
      f"{_BRIEF}; their loads are added up, as in Timcheck et al. 2026",
    ),
    "chip_ports": Fact(
      6, "ports per chip", f"{_BRIEF}: a mesh of three dimensions (recalled)"
    ),
    "broadcast": Fact(
      1,
      "messages per value and destination chip",
      f"{_BRIEF}: broadcast at the destination (recalled); copies for its"
      " cores are made where the message enters",
    ),
    "words_per_crossing": Fact(
      3, "32-bit words", f"{_PROFILE}: remote header, spike header, payload"
    ),
    "words_per_hop": Fact(
      2,
      "32-bit words",
      "spike header and payload: what is left without a remote header",
      "assumed",
    ),
    "copies_on_a_chip": Fact(
      1,
      "messages per value and destination core",
      "no multicast on a chip is published; a core's message to itself"
      " takes its router, too",
      "assumed",
    ),
    "core_order": Fact(
      None,
      "",
      "core k is at router k // 4, routers are counted along rows; which of"
      " the 128 places have no usable core is not published",
      "assumed",
    ),
    "port_order": Fact(
      None,
      "",
      "ports are at the middle of the four edges, and at the first and the"
      " last router for the third dimension",
      "assumed",
    ),
    "chip_grid": Fact(
      None,
      "",
      "grids of the systems are not published: `CHIP_GRIDS`, or the three"
      " factors of the number of chips that are most alike",
      "assumed",
    ),
    "chip_order": Fact(
      None,
      "",
      "chips are counted along a snake, so that neighbours in number share a"
      " link; routes between them are X-Y-Z",
      "assumed",
    ),
  }
)

# Chips along x, y and z; but for the one of a single chip assumed.
CHIP_GRIDS: Mapping[str, tuple[int, int, int]] = types.MappingProxyType(
  {
    "Oheo Gulch": (1, 1, 1),
    "Kapoho Point": (4, 2, 1),
    "VPX": (4, 4, 1),
    "Alia Point": (4, 4, 8),
    "Hala Point": (12, 12, 8),
  }
)

# Directions of links, in the order of every array of links.
DIRECTIONS = ("+x", "-x", "+y", "-y", "+z", "-z")


@dataclasses.dataclass(frozen=True)
class Mesh:
  """The routers of a chip.

  Attributes:
    columns: routers in a row.
    rows: rows.
    cores_per_router: cores at each.
    cores: cores that exist, from number 0 on.
  """

  columns: int
  rows: int
  cores_per_router: int
  cores: int

  @property
  def routers(self) -> int:
    """Number of routers."""
    return self.columns * self.rows

  def router(self, core: int) -> int:
    """Router of a core; `divmod(router, columns)` is (y, x).

    Raises:
      UserError: there is no such core.
    """
    if not 0 <= core < self.cores:
      raise UserError(
        f"core {core} does not exist: a chip has {self.cores} cores, 0 to"
        f" {self.cores - 1}; give one of these"
      )
    return core // self.cores_per_router

  @functools.cached_property
  def ports(self) -> np.ndarray:
    """Router of the port of each direction: int64[6]."""
    x, y = self.columns // 2, self.rows // 2
    last = self.columns - 1
    sides = [y * self.columns + last, y * self.columns]
    sides += [(self.rows - 1) * self.columns + x, x]
    return np.array([*sides, self.routers - 1, 0], np.int64)

  @functools.cached_property
  def taken(self) -> np.ndarray:
    """Links of each route: int64[routers, routers, routers, 4].

    taken[a, b, r, d] is 1 where the route from a to b leaves router r in
    direction d.
    """
    n, w = self.routers, self.columns
    y, x = np.divmod(np.arange(n), w)
    ax, ay = x[:, None, None], y[:, None, None]
    bx, by = x[None, :, None], y[None, :, None]
    row, column = y == ay, x == bx  # rows first: x changes in the row of a
    links = [
      row & (ax <= x) & (x < bx),
      row & (bx < x) & (x <= ax),
      column & (ay <= y) & (y < by),
      column & (by < y) & (y <= ay),
    ]
    return np.stack(links, axis=-1).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Grid:
  """The chips of a system.

  Attributes:
    size: chips along x, y and z.
  """

  size: tuple[int, int, int]

  @property
  def chips(self) -> int:
    """Number of chips."""
    x, y, z = self.size
    return x * y * z

  @functools.cached_property
  def places(self) -> np.ndarray:
    """x, y and z of every chip: int64[chips, 3]."""
    nx, ny, _ = self.size
    z, rest = np.divmod(np.arange(self.chips), nx * ny)
    rest = np.where(z % 2, nx * ny - 1 - rest, rest)
    y, x = np.divmod(rest, nx)
    x = np.where(y % 2, nx - 1 - x, x)
    return np.stack([x, y, z], axis=-1).astype(np.int64)

  @functools.cached_property
  def neighbour(self) -> np.ndarray:
    """Chip in each direction, -1 where there is none: int64[chips, 6]."""
    at = np.full(tuple(n + 2 for n in self.size), -1, np.int64)
    x, y, z = (self.places + 1).T
    at[x, y, z] = np.arange(self.chips)
    sides = [at[x + 1, y, z], at[x - 1, y, z], at[x, y + 1, z]]
    sides += [at[x, y - 1, z], at[x, y, z + 1], at[x, y, z - 1]]
    return np.stack(sides, axis=-1)

  def heading(self, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Direction of the first link from chips to others: x, then y, then z.

    Args:
      here: int[...], chips.
      there: int[...], other chips.

    Returns:
      int64[...], positions in `DIRECTIONS`.
    """
    gap = self.places[there] - self.places[here]
    return _side(gap, np.argmax(gap != 0, axis=-1))

  def entry(self, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Port of chips `there` by which messages from `here` come in.

    As `heading`; the last link is along the last dimension that differs.
    """
    gap = self.places[here] - self.places[there]
    return _side(gap, 2 - np.argmax(gap[..., ::-1] != 0, axis=-1))


def _side(gap: np.ndarray, axis) -> np.ndarray:
  """Direction along an axis, by the sign of the gap there."""
  axis = np.asarray(axis)
  one = np.take_along_axis(gap, axis[..., None], axis=-1)[..., 0]
  return 2 * axis + (one < 0)


def layout(hardware: Hardware) -> tuple[Mesh, Grid]:
  """Mesh of a chip and grid of the chips.

  Raises:
    UserError: more cores on a chip than its mesh has places for.
  """
  sizes = ("mesh_columns", "mesh_rows", "cores_per_router")
  columns, rows, per = (int(ROUTE_FACTS[n].value or 0) for n in sizes)
  room = columns * rows * per
  if hardware.cores_per_chip > room:
    raise UserError(
      f"{hardware.name}: cores_per_chip is {hardware.cores_per_chip}, but the"
      f" mesh of {columns} x {rows} routers with {per} cores each has {room}"
      f" places; routes are known for at most {room} cores per chip"
    )
  mesh = Mesh(columns, rows, per, hardware.cores_per_chip)
  named = CHIP_GRIDS.get(hardware.name)
  if named is not None and hardware.chips <= CHIPS[hardware.name]:
    return mesh, Grid(named)
  return mesh, Grid(_factors(hardware.chips))


@functools.cache
def _factors(chips: int) -> tuple[int, int, int]:
  """Three factors with the smallest sum, largest first."""
  best: tuple[int, ...] = (chips, 1, 1)
  for a in range(1, round(chips ** (1 / 3)) + 2):
    if chips % a:
      continue
    rest = chips // a
    b = next(b for b in range(int(rest**0.5), 0, -1) if rest % b == 0)
    found = sorted((a, b, rest // b), reverse=True)
    best = min(best, tuple(found), key=lambda f: (sum(f), f))
  x, y, z = best
  return x, y, z


@dataclasses.dataclass(frozen=True)
class Link:
  """A link of a route.

  Attributes:
    kind: `out` (core to router), `mesh` (router to router), `chip` (to
      another chip) or `in` (router to core).
    chip: chip that it leaves from.
    at: core for `out` and `in`, else router that it leaves from.
    direction: of `DIRECTIONS`; empty for `out` and `in`.
  """

  kind: str
  chip: int
  at: int
  direction: str = ""


def route(
  hardware: Hardware, start: tuple[int, int], stop: tuple[int, int]
) -> tuple[Link, ...]:
  """Links of a message from core to core.

  Args:
    hardware: the system.
    start: (chip, core) that sends.
    stop: (chip, core) that receives.

  Returns:
    The links in order; the first is `out`, the last one `in`.

  Raises:
    UserError: a chip or core that does not exist.
  """
  mesh, grid = layout(hardware)
  for chip, _ in (start, stop):
    if not 0 <= chip < hardware.chips:
      raise UserError(
        f"chip {chip} does not exist: {hardware.name} has {hardware.chips}"
        f" chips, 0 to {hardware.chips - 1}; give one of these"
      )
  at, end = mesh.router(start[1]), mesh.router(stop[1])
  found = [Link("out", *start)]

  def walk(chip: int, a: int, b: int) -> int:
    (ay, ax), (by, bx) = divmod(a, mesh.columns), divmod(b, mesh.columns)
    while (ax, ay) != (bx, by):
      router = ay * mesh.columns + ax
      if ax != bx:
        step = 1 if ax < bx else -1
        found.append(Link("mesh", chip, router, "+x" if step > 0 else "-x"))
        ax += step
      else:
        step = 1 if ay < by else -1
        found.append(Link("mesh", chip, router, "+y" if step > 0 else "-y"))
        ay += step
    return b

  chip = start[0]
  while chip != stop[0]:
    way = int(grid.heading(np.array(chip), np.array(stop[0])))
    at = walk(chip, at, int(mesh.ports[way]))
    found.append(Link("chip", chip, at, DIRECTIONS[way]))
    chip, at = int(grid.neighbour[chip, way]), int(mesh.ports[way ^ 1])
  walk(chip, at, end)
  return (*found, Link("in", *stop))
