import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests import their helpers by name: artifacts, ...

settings.register_profile("rnnx", deadline=None)  # how long a machine takes is no property of ours
settings.load_profile("rnnx")
