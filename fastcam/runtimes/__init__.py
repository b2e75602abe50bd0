"""What runs a network's masked forwards besides torch: `CAM(model, "scorecam", runtime="onnxruntime")`."""

from .engine import RUNTIMES, Engine, build, lacking, refuse, require

__all__ = ["RUNTIMES", "Engine", "build", "lacking", "refuse", "require"]
