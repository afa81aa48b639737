"""Neuron programs: what one tile computes in one time step.

Populations with the same program, width and cut form a class; their programs
run as one, vmapped over members (layers) and tiles (cores).  Numbers that
differ between members, shifts above all, are data.
"""

import dataclasses
from typing import Any

import numpy as np
from jax import numpy as jnp

from jaxnmc.chip.network import Network, Population
from jaxnmc.errors import PlacementError
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.layout import Pool

# An operand: ("port", index, age), ("node", index, age), ("state", index, 0),
# ("const", index, 0) or ("scalar", index, 0).
Operand = tuple[str, int, int]


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One element-wise instruction.

  Attributes:
    op: name in the instruction set.
    operands: where its data come from.
    static: (name, value) of operands known to the program.
    varying: (name, index into the scalars) of operands that are data.
  """

  op: str
  operands: tuple[Operand, ...]
  static: tuple[tuple[str, Any], ...]
  varying: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Program:
  """Instructions of one neuron.

  Attributes:
    instructions: in order.
    ports: number of accumulators.
    updates: for each state word the instruction whose result replaces it.
    waits: (kind, index, length): values kept in FIFOs.
  """

  instructions: tuple[Instruction, ...]
  ports: int
  updates: tuple[int, ...]
  waits: tuple[tuple[str, int, int], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
  """The program of one population with its own numbers.

  Attributes:
    program: shared with the other members of the class.
    consts: int32[width] arrays.
    scalars: integers.
    local: node id -> instruction index.
  """

  program: Program
  consts: tuple[np.ndarray, ...]
  scalars: tuple[int, ...]
  local: dict[int, int]


def compile_population(net: Network, population: Population) -> Compiled:
  """Turns a population's nodes into a program.

  Args:
    net: the network.
    population: one of its populations, on the chip.

  Returns:
    The program and this member's numbers.

  Raises:
    PlacementError: two tokens that follow each other would meet in a neuron.
  """
  nodes, depth = net.graph.nodes, net.depth
  # Values that wait on an axon: (node, delay) -> port.
  axons = {
    (s.source, s.delay): population.ports.index(s.port)
    for s in net.synapses
    if s.dst == population.index
    and s.kind == "relay"
    and (s.delay or s.src == s.dst)
  }
  ports = {
    net.ports[k].node: i
    for i, k in enumerate(population.ports)
    if i not in axons.values()
  }
  states = {node: k for k, node in enumerate(population.states)}
  local: dict[int, int] = {}
  pool = Pool()
  instructions: list[Instruction] = []
  waits: dict[tuple[str, int], int] = {}

  def operand(reader: int, arg: int) -> Operand:
    node = nodes[arg]
    if node.op == "const":
      return (*pool.const(node), 0)
    if node.op == "prev":
      return ("state", states[arg], 0)
    if arg in local:
      age = depth[reader] - depth[arg]
      slot = ("node", local[arg])
      if (arg, age - 1) in axons:
        # The ring of accumulators behind a delay is a FIFO of its port.
        age -= 1
        slot = ("port", axons[arg, age])
    else:
      age = depth[reader] - net.ports[population.ports[ports[arg]]].depth
      slot = ("port", axons.get((arg, age), ports[arg]))
    if age < 0:
      raise PlacementError(
        f"two tokens meet in population {population.name}: its"
        f" {nodes[reader].op} runs {depth[reader]} steps after its token"
        f" entered, but an operand comes only after {depth[reader] - age}; in"
        " pipelined mode the next token's operands are there by then; schedule"
        " it as late as its latest operand, as network(graph) does"
      )
    if age:
      waits[slot] = max(age, waits.get(slot, 0))
    return (*slot, age)

  for i in population.nodes:
    node = nodes[i]
    if node.op == "prev":
      continue
    operands = tuple(operand(i, arg) for arg in node.args)
    local[i] = len(instructions)
    instructions.append(Instruction(node.op, operands, *pool.split(node)))
  updates = tuple(local[net.graph.bind[i]] for i in states)
  program = Program(
    tuple(instructions),
    len(population.ports),
    updates,
    tuple((k, i, a) for (k, i), a in sorted(waits.items())),
  )
  return Compiled(program, tuple(pool.consts), tuple(pool.scalars), local)


def queue(waiting, now):
  """A FIFO one step later: int32[length, n], the newest value first."""
  return jnp.concatenate([now[None], waiting[:-1]])


def waited(waiting, age: int):
  """The value that entered a FIFO `age` steps ago, int32[n]."""
  return waiting[age - 1]


def run_tile(
  program: Program, fixed: tuple, ports, waiting, state, consts, data
):
  """One time step of one tile.

  Args:
    program: what to compute.
    fixed: scalars known when compiling (None where `data` has them).
    ports: accumulators, int32[ports, n].
    waiting: FIFO contents by wait, each int32[length, n], newest first.
    state: recurrent state, int32[states, n].
    consts: int32[consts, n].
    data: int32[scalars] of this member.

  Returns:
    (values int32[instructions, n], new FIFO contents, state candidates).
  """
  alu = IntAlu()
  slots = {(k, i): j for j, (k, i, _) in enumerate(program.waits)}
  values: list = []

  def number(i: int):
    return fixed[i] if fixed[i] is not None else data[i]

  def read(where: Operand):
    kind, i, age = where
    if kind == "scalar":
      return jnp.int32(number(i))
    if kind == "const":
      return consts[i]
    if kind == "state":
      return state[i]
    if age:
      return waited(waiting[slots[(kind, i)]], age)
    return ports[i] if kind == "port" else values[i]

  width = (ports if program.ports else state).shape[-1]
  for step in program.instructions:
    static = dict(step.static)
    static.update({name: number(i) for name, i in step.varying})
    out = getattr(alu, step.op)(*(read(w) for w in step.operands), **static)
    values.append(jnp.broadcast_to(out, (width,)))
  fresh = []
  for j, (kind, i, _) in enumerate(program.waits):
    now = ports[i] if kind == "port" else values[i]
    fresh.append(queue(waiting[j], now))
  candidates = [values[i] for i in program.updates]
  return values, fresh, candidates
