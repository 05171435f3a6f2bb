import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests import their helpers by name: artifacts, ...

settings.register_profile("rnnx", deadline=None)  # how long a machine takes is no property of ours
settings.load_profile("rnnx")

# Tensors this small gain nothing from threads, which fight for the cores; set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
