"""Lightning made importable in every test process, also in the one that gathers the others' warnings."""

from eclip import lean_lightning, torchvision_fix  # noqa: F401
