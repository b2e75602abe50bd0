"""Differences of captum's and Quantus' shapes."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

NEIGHBORS: tuple[Difference, ...] = (
    Difference(
        peer="captum",
        what="LayerGradCam at tokens (B, n, C) or at features that stand last (B, h, w, C)",
        theirs="the second axis is added up and the others averaged: one value a feature, or a column of cells",
        ours="a map (B, 1, h, w): channels are weighed, prefix tokens are left out",
        reason="w_k is the mean of dS/dA_k over cells, and the map is the sum over channels k, wherever these stand",
        source="Selvaraju 2017, arXiv:1610.02391, eq. 1-2",
        switch="attr_dim_summation=False gives captum's arithmetic before its sum",
    ),
    Difference(
        peer="captum",
        what="LayerGradCam at a layer without positions",
        theirs="one number an example, the sum of gradient times value",
        ours="ValueError: the layer has no spatial map",
        reason="a pooled layer has no map; LayerGradientXActivation gives its attributions",
        source="Selvaraju 2017, arXiv:1610.02391, eq. 1-2",
        switch="none",
    ),
    Difference(
        peer="captum",
        what="LayerGradCam's result",
        theirs="holds the graph of the forward, in the model's precision",
        ours="holds no graph and is float32 at least, unless grad_kwargs or another option asks for hooks",
        reason="maps kept in a list would keep every forward's activations alive",
        source="pytorch-grad-cam #78 is the same leak",
        switch='grad_kwargs={"create_graph": True}',
    ),
    Difference(
        peer="captum",
        what="LayerGradCam, GuidedGradCam with device_ids",
        theirs="parts of a batch on several devices are put together",
        ours="ValueError for more than one device",
        reason="one process a device is faster and has no replicas; `fastcam.distributed` runs it",
        source="docs of torch.nn.DataParallel, which advises the same",
        switch="none",
    ),
    Difference(
        peer="captum",
        what="GuidedGradCam of ReLUs that are functions, or ReLU6",
        theirs="only modules of the class nn.ReLU follow the rule",
        ours="every ReLU does",
        reason="R -> relu(R) is the rule of the nonlinearity, not of a class",
        source="Springenberg 2015, arXiv:1412.6806, fig. 1",
        switch="none",
    ),
    Difference(
        peer="captum",
        what="GuidedGradCam of a model in training mode",
        theirs="Grad-CAM and guided backpropagation run in training mode, each with its own dropout",
        ours="both run in evaluation mode, and the mode is put back",
        reason="the two factors of one product belong to one network",
        source="Selvaraju 2017, arXiv:1610.02391, section 3.2",
        switch="none",
    ),
    Difference(
        peer="captum",
        what="a target that does not fit the output",
        theirs="AssertionError or IndexError",
        ours="ValueError or TypeError that names the target and the output",
        reason="assertions are gone under python -O",
        source="captum 0.9, the target rules of its forward helper",
        switch="none",
    ),
)
