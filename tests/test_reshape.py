"""`CAM(..., reshape=)`: a user's function shows the maps in what a layer gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fastcam import CAM

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Tokens(nn.Module):
    """Patches as tokens in front of two registers, a mixing of tokens, then the mean of all."""

    def __init__(self, several: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.registers = nn.Parameter(torch.randn(1, 2, 6))
        self.mix = Mix(several)
        self.after = nn.Linear(18, 18)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.mix(torch.cat([x, self.registers.expand(len(x), -1, -1)], 1))
        x = x if isinstance(x, torch.Tensor) else x[0]
        return self.head(self.after(x.transpose(1, 2)).tanh().mean(2))


class Mix(nn.Module):
    """A layer that gives a tensor, or a tuple that begins with it."""

    def __init__(self, several: bool) -> None:
        super().__init__()
        self.linear, self.several = nn.Linear(6, 6), several

    def forward(self, x):
        y = self.linear(x).tanh()
        return (y, torch.zeros(3)) if self.several else y


class Pyramid(nn.Module):
    """Two maps by name, as a detector's backbone gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Levels()
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        levels = self.body(x)
        return self.head(torch.cat([level.mean((2, 3)) for level in levels.values()], 1))


class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, 2, 2)

    def forward(self, x):
        fine = self.fine(x).relu()
        return {"0": fine, "1": self.coarse(fine).relu()}


class Pair(nn.Module):
    """A layer that gives two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(3, 4, 4, 4)

    def forward(self, x):
        return self.one(x), self.other(x)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)

    def forward(self, maps):
        return self.head((maps[0] * maps[1].relu()).mean((2, 3)))


def two():
    return nn.Sequential(Pair(), Both())


def second(given):
    return given[1]


def built(network, *args):
    torch.manual_seed(0)
    return network(*args).eval()


def first_sixteen(tokens):
    """Registers stand last here, where no rule looks for them."""
    return tokens[:, :16].transpose(1, 2).unflatten(2, (4, 4))


def by_hand(model, classes):
    """A and dS/dA of the patches, by autograd and nothing else."""
    x = model.patch(IMAGES).flatten(2).transpose(1, 2)
    tokens = model.mix(torch.cat([x, model.registers.expand(2, -1, -1)], 1)).detach().requires_grad_()
    logits = model.head(model.after(tokens.transpose(1, 2)).tanh().mean(2))
    (g,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), tokens)
    return first_sixteen(tokens.detach()), first_sixteen(g)


def test_gradients_are_seen_by_the_function():
    model, classes = built(Tokens), torch.tensor([1, 4])
    a, g = by_hand(model, classes)
    raw = CAM(model, "gradcam", "mix", reshape=first_sixteen).explain(IMAGES, target=classes).raw
    assert_close(raw, (g.mean((2, 3), keepdim=True) * a).sum(1))
    raw = CAM(model, "layercam", "mix", reshape=first_sixteen).explain(IMAGES, target=classes).raw
    assert_close(raw, (g.relu() * a).sum(1))


def test_masked_channels_and_cells_leave_what_is_not_seen_as_it_was():
    model = built(Tokens)
    x = model.patch(IMAGES).flatten(2).transpose(1, 2)
    tokens = model.mix(torch.cat([x, model.registers.expand(2, -1, -1)], 1)).detach()

    def score(t):
        return model.head(model.after(t.transpose(1, 2)).tanh().mean(2))[:, 2]

    drops, cells = [], []
    for k in range(6):
        off = tokens.clone()
        off[:, :16, k] = 0
        drops.append((score(tokens) - score(off)) / score(tokens))
    for i in range(16):
        on = tokens.clone()
        on[:, :16] = 0
        on[:, i] = tokens[:, i]
        cells.append(score(on))
    a = first_sixteen(tokens)
    with torch.no_grad():
        ablation = CAM(model, "ablationcam", "mix", reshape=first_sixteen).explain(IMAGES, target=2).raw
        assert_close(ablation, (torch.stack(drops, 1)[..., None, None] * a).sum(1).detach())
        recipro = CAM(model, "reciprocam", "mix", reshape=first_sixteen, score="logit").explain(IMAGES, target=2).raw
        assert_close(recipro, torch.stack(cells, 1).unflatten(1, (4, 4)).detach())


def test_a_tuple_is_given_as_the_layer_gives_it():
    one, other = built(Tokens), built(Tokens, True)
    other.load_state_dict(one.state_dict())
    wanted = CAM(one, "gradcam", "mix", reshape=first_sixteen).explain(IMAGES, target=0).raw
    assert_close(
        CAM(other, "gradcam", "mix", reshape=lambda out: first_sixteen(out[0])).explain(IMAGES, target=0).raw, wanted
    )


def test_another_tensor_than_the_first_is_looked_at_only():
    model = built(two)
    assert_close(CAM(model, "activationmap", "0", reshape=second).explain(IMAGES).raw, model[0](IMAGES)[1].mean(1))
    with pytest.raises(ValueError, match="does not depend"):
        CAM(model, "gradcam", "0", reshape=second)(IMAGES)
    with pytest.raises(ValueError, match="another one than the first"):
        CAM(model, "ablationcam", "0", reshape=second)(IMAGES)


def test_a_function_that_shows_the_usual_maps_keeps_the_closed_form():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    usual = CAM(model, "ablationcam", "1").explain(IMAGES)
    shown = CAM(model, "ablationcam", "1", reshape=lambda x: x).explain(IMAGES)
    assert shown.cost.tails == usual.cost.tails == 0
    assert torch.equal(shown.raw, usual.raw)
    turned = CAM(model, "ablationcam", "1", reshape=lambda x: x.flip(-1)).explain(IMAGES)
    assert_close(turned.raw, usual.raw.flip(-1))
    assert torch.equal(CAM(model, "gradcam", "1").explain(IMAGES).raw, CAM(model, "hirescam", "1").explain(IMAGES).raw)


def test_maps_of_several_tensors_are_looked_at_and_never_masked():
    model = built(Pyramid)

    def together(levels):
        return torch.cat([nn.functional.interpolate(level, (4, 4)) for level in levels.values()], 1)

    cam = CAM(model, "eigencam", "body", reshape=together)
    a = together(model.body(IMAGES)).detach()
    first = torch.linalg.svd(a.flatten(2).mT).Vh[:, 0]
    raw = cam.explain(IMAGES).raw
    projected = torch.einsum("bc,bchw->bhw", first, a)
    for one, wanted in zip(raw, projected, strict=True):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), wanted.flatten()]))[0, 1]) > 0.9999
    with pytest.raises(ValueError, match="joins several tensors"):
        CAM(model, "ablationcam", "body", reshape=together)(IMAGES)
    with pytest.raises(ValueError, match="does not depend"):
        CAM(model, "gradcam", "body", reshape=together)(IMAGES)


def test_what_a_function_makes_of_names_must_be_a_tensor():
    with pytest.raises(ValueError, match="gave a list"):
        CAM(built(Pyramid), "eigencam", "body", reshape=lambda levels: list(levels.values()))(IMAGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": None, "reshape": first_sixteen}, "needs layer="),
        ({"layer": "mix", "reshape": 3}, "function of what a layer gives"),
        ({"layer": "mix", "reshape": lambda x: x[:, :, 0]}, "must give maps"),
        (
            {"layer": "mix", "reshape": lambda x: 2 * first_sixteen(x), "method": "ablationcam"},
            "scales, adds or repeats",
        ),
    ],
)
def test_what_cannot_be_served_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        CAM(built(Tokens), **options)(IMAGES)
