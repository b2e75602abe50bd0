"""Differences of torchcam's explain, metrics and overlays."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

TORCHCAM_TOOLS: tuple[Difference, ...] = (
    Difference(
        peer="torchcam",
        what="explain without target_layer, of another class than GradCAM",
        theirs="the layer is looked for with a picture of 3 x 224 x 224",
        ours="with one of the input's own shape, as for GradCAM",
        reason="the last map before pooling is another layer at another size, and the model may take other channels",
        source="torchcam 0.5.0, `explain`",
        switch='method_kwargs={"input_shape": (3, 224, 224)}',
    ),
    Difference(
        peer="torchcam",
        what="explain with method=RefineCAM or FinerCAM",
        theirs="TypeError: no extractor class",
        ours="explains",
        reason="both are extractors by their call, but wrap another one and share no base class",
        source="torchcam 0.5.0, `explain`",
        switch="none",
    ),
    Difference(
        peer="torchcam",
        what="ClassificationMetric, DeletionInsertionMetric under no_grad or inference_mode",
        theirs="RuntimeError for extractors that need gradients",
        ours="works",
        reason="what the caller has switched off is switched on for the maps alone",
        source="torchcam #26, #195",
        switch="none",
    ),
    Difference(
        peer="torchcam",
        what="ClassificationMetric, DeletionInsertionMetric of float16 and bfloat16 models",
        theirs="quotients, areas and sums in the model's precision, three digits; 1e-7 is no help in float16",
        ours="in float64",
        reason="a sum of many images needs more digits than each of them",
        source="bfloat16 has 8 bits of precision, float16 has 11",
        switch="none",
    ),
    Difference(
        peer="torchcam",
        what="drop, increase, deletion, insertion, total, nan_count of the metrics",
        theirs="numbers that can be written to, made after every batch while the device waits",
        ours="read-only, made when they are asked for",
        reason="a batch is then added without a word from the device",
        source="torchcam 0.5.0, `update`",
        switch="none",
    ),
    Difference(
        peer="torchcam",
        what="overlay_mask where matplotlib is not installed",
        theirs="ImportError",
        ours="jet and gray as there; turbo, viridis and inferno within 4 of 255; ImportError for others",
        reason="matplotlib is no dependency",
        source="matplotlib's tables",
        switch="pip install matplotlib",
    ),
)
