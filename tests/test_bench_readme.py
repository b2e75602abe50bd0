"""Runs the Python of a page on fastcam and on a peer: what a block needs is given, and what stopped it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

for package in ("pytorch_grad_cam", "torchcam", "torchvision", "timm", "matplotlib"):
    pytest.importorskip(package)
from bench import compat_blocks, compat_readme  # noqa: E402 - after the packages they need

PAGE = """
Text, and `inline`.
```python
from torchcam.methods import GradCAM
from torchvision.io import decode_image
from torchvision.models import ResNet18_Weights, resnet18
model = resnet18(weights=ResNet18_Weights.DEFAULT).eval()
batch = decode_image("some/folder/cat.jpg")[None, :, :64, :64] / 255
with GradCAM(model, "layer4") as extractor:
    maps = extractor(3, model(batch))
assert maps[0].shape == (1, 2, 2)
```

```shell
not python
```
- In a list, with an image that only the text knows and a list that lost its parentheses:
  ```python
  from pytorch_grad_cam import EigenCAM,
                               LayerCAM
  input_tensor = # an image
  assert input_tensor.shape == (1, 3, 96, 96)
  found = LayerCAM(model, [model.layer3])(input_tensor, None)
  assert found.shape == (1, 96, 96)
  ```
```python
assert rgb_img.shape == (96, 96, 3)
nobody_knows
```
```python
import pytorch_grad_cam
assert "compat" in pytorch_grad_cam.__file__
```
"""


def test_a_page_on_both(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(PAGE, encoding="utf-8")
    found = compat_readme.readme(page)
    assert found.theirs is not None
    assert [one.line for one in found.ours] == [4, 19, 27, 31]
    assert [one.error for one in found.ours] == [None, None, "NameError: name 'nobody_knows' is not defined", None]
    assert [one.error is None for one in found.theirs] == [True, True, False, False]
    assert found.theirs[3].error == "AssertionError: "
    assert [one.lent for one in found.ours] == [[], ["input_tensor"], ["rgb_img"], []]
    assert [len(one.mended) for one in found.ours] == [0, 2, 0, 0]
    text = found.text()
    assert "3 of 4 blocks of Python run on fastcam, 2 on the peer itself" in text
    assert "stopped: NameError" in text
    assert len(found.failed) == 1
    assert found.plain()["ours"][1]["mended"] == found.ours[1].mended


def test_a_page_without_python(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        compat_readme.readme(tmp_path / "README.md")
    (tmp_path / "README.md").write_text("```shell\nls\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no ```python block"):
        compat_readme.readme(tmp_path / "README.md")


def test_good_python_is_not_touched() -> None:
    said: list[str] = []
    source = "x = 3  # three\nfrom os import (path,\n    sep)\n"
    assert compat_blocks.mend(source, said) == source
    assert not said
    assert compat_blocks.mend("x = # three\n", said) == "x = x\n"
    assert len(said) == 1
