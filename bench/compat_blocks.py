"""What runs a README's blocks of Python in a process of their own, see `bench.compat_readme`.

python -m bench.compat_blocks README.md --as ours --to FOUND.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^(?P<indent>[ \t]*)```python[^\n]*\n(?P<source>.*?)^(?P=indent)```", re.M | re.S)
PICTURE = re.compile(r"""["']([^"'\n]+\.(?:jpe?g|png|jfif))["']""")
SIDE = 96  # pixels of a stand-in's image


@dataclass
class Ran:
    """What became of one block.

    Attributes:
        line: of its first line in the file.
        error: type and message of what it raised, or None.
        seconds: it took.
        lent: names it used that no block before had defined.
        mended: what had to be changed for Python to read it.
    """

    line: int
    error: str | None = None
    seconds: float = 0.0
    lent: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)


def blocks(text: str) -> list[tuple[int, str]]:
    """(line, source) of each block fenced as Python, its indent in the page taken away."""
    found = []
    for match in FENCE.finditer(text):
        source = re.sub(rf"^{match['indent']}", "", match["source"], flags=re.M)
        found.append((text.count("\n", 0, match.start()) + 2, source))
    return found


def here(path: Path, who: str) -> list[Ran]:
    """All blocks in this process, in its working folder."""
    if who == "ours":
        import fastcam.compat.patch  # noqa: F401
    warnings.simplefilter("ignore")
    names, found = Names(), []
    with random_weights():
        for line, written in blocks(path.read_text(encoding="utf-8")):
            one = Ran(line)
            found.append(one)
            for picture in PICTURE.findall(written):
                give_picture(Path(picture))
            names.lent = one.lent
            if ".device()" in written:
                names.say_device()
            began = time.perf_counter()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(mend(written, one.mended), f"{path.name}:{line}", "exec"), names)
            except Exception as error:
                first = (str(error).splitlines() or [""])[0]
                one.error = f"{type(error).__name__}: {first}"
            one.seconds = time.perf_counter() - began
            if who == "ours" and one.error is None and (real := real_peers()):
                one.error = f"not redirected: {', '.join(real)}"
    return found


def real_peers() -> list[str]:
    """Imported modules of a peer's name that are the peer's own."""
    roots = ("pytorch_grad_cam", "torchcam")
    found = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in roots}
    return [name for name, module in found.items() if not module.__name__.startswith("fastcam.compat.")]


def mend(source: str, said: list[str]) -> str:
    """The source, or what Python reads after a rule of `MENDS`; each rule that was needed is `said`."""
    for pattern, put, why in MENDS:
        try:
            compile(source, "block", "exec")
        except SyntaxError:
            changed = pattern.sub(put, source)
            if changed != source:
                said.append(why)
                source = changed
        else:
            break
    return source


MENDS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str], str]] = [
    (re.compile(r"^(\s*)(\w+) *= *#.*$", re.M), r"\1\2 = \2", "a value that is only a comment is the name's stand-in"),
    (
        re.compile(r"^([ \t]*from [\w.]+ import )((?:\w+,[ \t]*\n[ \t]*)+\w+)[ \t]*$", re.M),
        r"\1(\2)",
        "names imported over several lines get their parentheses",
    ),
]


class Names(dict[str, Any]):
    """What the blocks define; a name that none of them did is lent from `STAND_INS`, once."""

    lent: list[str]

    def __missing__(self, name: str) -> Any:
        if name not in STAND_INS:
            raise KeyError(name)
        self.lent.append(name)
        self[name] = STAND_INS[name](self)
        return self[name]

    def say_device(self) -> None:
        """Lets `model` say its device by `model.device()`, as some networks do and torchvision's do not."""
        model = self["model"]
        if not hasattr(model, "device"):
            object.__setattr__(model, "device", lambda: next(model.parameters()).device)
            self.lent.append("model.device()")


def picture() -> Any:
    """(H, W, 3) float32 in [0, 1]"""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(str(files("fastcam.data") / "chelsea.jpg")).resize((SIDE, SIDE)), "float32") / 255


def image_batch(names: Names) -> Any:
    import torch

    return (torch.from_numpy(picture()).permute(2, 0, 1)[None] - 0.45) / 0.23


def maps(names: Names) -> Any:
    import numpy as np

    return np.float32(np.stack([names["grayscale_cam"]]))


def opencv(names: Names) -> Any:
    """OpenCV, or of it what a block may ask for where it is not installed: `merge`."""
    try:
        import cv2
    except ImportError:
        import numpy as np

        return types.SimpleNamespace(merge=np.dstack)
    return cv2


def transformer(names: Names) -> Any:
    """A random Vision Transformer of timm with patches of 16 pixels."""
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=224).eval()


def of_peer(name: str) -> Callable[[Names], Any]:
    def find(names: Names) -> Any:
        import pytorch_grad_cam

        return getattr(pytorch_grad_cam, name)

    return find


# What the pages speak of outside their blocks.
STAND_INS: dict[str, Callable[[Names], Any]] = {
    "input_tensor": image_batch,
    "rgb_img": lambda names: picture(),
    "grayscale_cams": maps,
    "inverse_cams": lambda names: 1 - names["grayscale_cams"],
    "cv2": opencv,
    "model": transformer,
    "target_layers": lambda names: [names["model"].blocks[-1].norm1],
    "reshape_transform": lambda names: lambda x: x[:, 1:].reshape(len(x), 14, 14, -1).permute(0, 3, 1, 2),
    "GradCAM": of_peer("GradCAM"),
}


def give_picture(path: Path) -> None:
    """A picture where a block looks for one, unless there is one."""
    if not path.is_absolute() and not path.exists() and ".." not in path.parts:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(files("fastcam.data") / "chelsea.jpg"), path)


@contextlib.contextmanager
def random_weights() -> Iterator[None]:
    """torchvision's weights that are not on this machine are random ones of the same network."""
    import torch
    from torchvision import models
    from torchvision.models import WeightsEnum

    original = WeightsEnum.get_state_dict
    made: dict[Any, Any] = {}  # a large network takes seconds to fill, and a suite asks for it a hundred times

    def state(weights: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name).exists():
            return original(weights, *args, **kwargs)
        if weights not in made:
            builders = [name for name in models.list_models() if isinstance(weights, models.get_model_weights(name))]
            torch.manual_seed(0)
            # With weights, torchvision builds these with the second classifier that they leave out without.
            more = {"aux_loss": True} if builders[0].startswith(("deeplabv3", "fcn_")) else {}
            made[weights] = models.get_model(builders[0], weights=None, **more).state_dict()
        return made[weights]

    WeightsEnum.get_state_dict = state  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = original


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.compat_blocks", description="Run a README's Python here.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--as", dest="who", choices=("ours", "theirs"), required=True, help="whose imports are whose")
    parser.add_argument("--to", type=Path, required=True, help="file for what was found")
    given = parser.parse_args()
    given.to.write_text(json.dumps([asdict(one) for one in here(given.path, given.who)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
