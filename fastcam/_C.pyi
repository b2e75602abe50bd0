"""The compiled kernels; csrc/ops.h documents them. Tensors go as `data_ptr()`.

`place` is the number of threads here, and the stream in `cuda`.
"""

from types import ModuleType
from typing import TypedDict

cuda: ModuleType  # the kernels for a GPU, by the same names and arguments; without nvcc only refusal() -> str
emulated: ModuleType  # the same on CPU memory, for tests, and set_order(order: int) of their threads

class BuildInfo(TypedDict):
    isa: str
    openmp: bool
    cuda: bool
    compiler: str

def build_info() -> BuildInfo: ...
def use_isa(name: str) -> bool: ...
def weighted_sum(
    activations: int, weights: int, out: int, B: int, T: int, C: int, P: int, element: int, place: int
) -> None: ...
def resize_normalize(maps: int, out: int, N: int, h: int, w: int, H: int, W: int, clip: int, place: int) -> None: ...
def mask_images(
    activations: int,
    images: int,
    out: int,
    constant: int,
    stride: int,
    B: int,
    K: int,
    h: int,
    w: int,
    C: int,
    H: int,
    W: int,
    element: int,
    channels_last: bool,
    normalize: int,
    align_corners: bool,
    place: int,
) -> None: ...
def mask_cells(
    activations: int,
    out: int,
    B: int,
    C: int,
    h: int,
    w: int,
    start: int,
    stop: int,
    element: int,
    channels_last: bool,
    kernel: int,
    place: int,
) -> None: ...
def mask_channels(
    activations: int,
    out: int,
    B: int,
    C: int,
    P: int,
    start: int,
    stop: int,
    element_size: int,
    channels_last: bool,
    place: int,
) -> None: ...
def overlay(images: int, maps: int, colormap: int, out: int, N: int, alpha: float, place: int) -> None: ...
def rank_pixels(maps: int, ranks: int, scratch: int, blocks: int, N: int, P: int, place: int) -> None: ...
def perturb_steps(
    images: int,
    image_strides: tuple[int, ...],
    others: int,
    other_strides: tuple[int, ...],
    ranks: int,
    counts: int,
    out: int,
    stride: int,
    N: int,
    S: int,
    C: int,
    H: int,
    W: int,
    h: int,
    w: int,
    element_size: int,
    channels_last: bool,
    place: int,
) -> None: ...
def blur_images(
    images: int,
    taps: int,
    out: int,
    N: int,
    C: int,
    H: int,
    W: int,
    size: int,
    element: int,
    channels_last: bool,
    place: int,
) -> None: ...
def component_boxes(
    maps: int,
    thresholds: int,
    boxes: int,
    areas: int,
    scratch: int,
    blocks: int,
    stride: int,
    B: int,
    H: int,
    W: int,
    T: int,
    connectivity: int,
    relative: bool,
    place: int,
) -> None: ...
def components(
    maps: int,
    thresholds: int,
    boxes: int,
    areas: int,
    owners: int,
    count: int,
    capacity: int,
    stride: int,
    B: int,
    H: int,
    W: int,
    T: int,
    min_area: int,
    connectivity: int,
    relative: bool,
    place: int,
) -> None: ...
def energy_in_boxes(
    maps: int, boxes: int, inside: int, total: int, B: int, N: int, H: int, W: int, inclusive: bool, place: int
) -> None: ...
def impute_pixels(
    images: int,
    removed: int,
    out: int,
    failed: int,
    stride: int,
    N: int,
    C: int,
    H: int,
    W: int,
    tolerance: float,
    place: int,
) -> None: ...
