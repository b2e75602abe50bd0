"""Differences of torchcam's extractors."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference


def _row(what: str, theirs: str, ours: str, reason: str, source: str, switch: str = "none") -> Difference:
    return Difference("torchcam", what, theirs, ours, reason, source, switch)


_STRICT = "strict_compat=True"

TORCHCAM_MAPS: tuple[Difference, ...] = (
    _row(
        "GradCAMpp (and RefineCAM by default)",
        "w_k = sum_ij g^2 relu(g)",
        "w_k = sum_ij alpha relu(g), alpha = g^2 / (2 g^2 + g^3 sum_ab A_k + eps)",
        "`alpha[mask].div_(...)` divides a copy that indexing made, so alpha stays g^2; and A g^3 is summed where the "
        "equation sums A alone",
        "Chattopadhay 2018, arXiv:1710.11063, eq. 19",
        _STRICT,
    ),
    _row(
        "SmoothGradCAMpp",
        "activations and relu(g) of the last noisy sample, and sum_ab A_k D3",
        "activations of the input itself, relu of the mean gradient, and D3 sum_ab A_k",
        "the map of one random sample is not the smoothed map: sum_k w_k A_k, w_k = sum_ij alpha relu(D1), "
        "alpha = D2 / (2 D2 + D3 sum_ab A_k + eps)",
        "Omeiza 2019, arXiv:1908.01224, eq. 8-11",
        _STRICT,
    ),
    _row(
        "SmoothGradCAMpp, SSCAM",
        "noise from torch's global generator, which each call moves on",
        "noise from a generator of its own, seeded by the last `torch.manual_seed`; the same in each call",
        "an explanation must not change the random numbers of a training loop, and can be repeated; the noise is the "
        "same N(0, std), and masks that are alike share theirs",
        "the model and its surroundings are left as they were",
        _STRICT,
    ),
    _row(
        "SmoothGradCAMpp",
        "noisy forwards in whatever mode the model is",
        "in evaluation mode, several samples a forward",
        "in training mode they move the running statistics of batch norm, and drop units at random",
        "the model and its surroundings are left as they were",
        _STRICT,
    ),
    _row(
        "all extractors at a layer before an in-place ReLU",
        "the activations after the ReLU, and the gradient with respect to them",
        "those of the layer that was named",
        "the hook keeps the layer's own memory, which the next module overwrites; ours keeps it apart by one copy",
        "pytorch issue #61519, torchcam issue #72",
        _STRICT,
    ),
    _row(
        "maps of float16 and bfloat16 models",
        "NaN where max + 1e-8 is 0 in float16 (GradCAMpp, ScoreCAM)",
        "products, sums and min-max in float32, the map in the model's dtype",
        "(m - min m) / (max m - min m + 1e-8) is 0 / 0 where 1e-8 rounds to zero",
        "torchcam issue #186",
    ),
    _row(
        "gradient extractors after a forward under no_grad or inference_mode",
        "RuntimeError",
        "the forward is run once more in evaluation mode, recorded from the first target layer on; RuntimeError if the "
        "scores passed are not those that it gives",
        "evaluation loops run under no_grad",
        "torchcam issues #26, #195",
    ),
    _row(
        "gradient extractors of a model with frozen parameters",
        "RuntimeError, unless the input requires a gradient",
        "the graph begins at the first target layer; the scores then require a gradient",
        "a gradient at the layer needs none of the parameters",
        "torchcam issue #26",
    ),
    _row(
        "targets= of a model that returns a dict or a tuple",
        "TypeError",
        "each target is given one sample of it: a dict, or a tuple, of what belongs to one image",
        "a detector or a model with several heads returns its scores by name",
        "torchcam 0.5's own rule for tensors and lists, continued",
    ),
    _row(
        "ScoreCAM, SSCAM, ISCAM, SmoothGradCAMpp of a model with further inputs",
        "only the first input is passed again",
        "all are, by position or by name",
        "the model raises, or is explained for other inputs",
        "torchcam issue #151",
    ),
    _row(
        "ScoreCAM, SSCAM, ISCAM: batch_size=32, the default",
        "32 rows a masked forward",
        "the fastest number of rows that 256 MB allow, found on the way; any other batch_size is taken as it is",
        "a fixed number of rows is slow on small machines and fills the memory of others; the maps are the same",
        "fastcam's chunks of masked forwards",
        "batch_size=",
    ),
    _row(
        "a second extractor on the same model",
        "the first one's hooks hear the forward that looks for a layer, and its masked or noisy forwards",
        "forwards for an extractor's own ends are heard by no other",
        "the first extractor's activations were replaced, or the constructor raised",
        "torchcam issue #195",
    ),
    _row(
        "del extractor, copies and saved models",
        "the hooks stay on the model for good, and travel with copies of it together with the extractor",
        "hooks end with their extractor; a copy has none that does anything",
        "a forgotten extractor kept activations alive, and copy.deepcopy of a model in use raised",
        "fastcam.compat.torchcam.methods.hooks",
    ),
    _row(
        "signals (N, C, L): ScoreCAM, SSCAM, ISCAM, fuse_cams, RefineCAM",
        "ValueError from `interpolate`; RefineCAM takes the nearest sample",
        "linear in the axis",
        "align_corners is no argument of the mode that is asked for",
        "torch.nn.functional.interpolate",
    ),
    _row(
        "locate_candidate_layer",
        "looks with a float32 input, whatever the model",
        "with one in the model's dtype",
        "a model in half precision raises for another",
        "torch's rules of types",
    ),
    _row(
        "class_idx=[...] with a class that the model does not have",
        "RuntimeError, on a GPU an assertion that ends the process's CUDA context",
        "IndexError that names the class; ValueError of ScoreCAM and its kin, and of SmoothGradCAMpp",
        "the list is compared with the number of scores before it reaches the device",
        "torch.gather",
    ),
)
