"""Exchange with other spiking libraries: NIR graphs and files.

NIR (Neuromorphic Intermediate Representation) is a graph of neurons in
continuous time and real numbers that snnTorch, Norse, Lava and others read and
write.  See docs/nir.md.
"""

from jaxnmc.io.nir.export_circuit import Exported, export_circuit
from jaxnmc.io.nir.export_recorded import export_recorded
from jaxnmc.io.nir.files import read, write
from jaxnmc.io.nir.import_circuit import Imported, import_circuit
from jaxnmc.io.nir.notes import Note, Report

__all__ = [
  "Exported",
  "Imported",
  "Note",
  "Report",
  "export_circuit",
  "export_recorded",
  "import_circuit",
  "read",
  "write",
]
