"""Differences of pytorch-grad-cam's utilities, targets, metrics, factors and guided backpropagation."""

from __future__ import annotations

from fastcam.compat.differences.difference import Difference

PEER = "pytorch-grad-cam"

GRADCAM_TOOLS: tuple[Difference, ...] = (
    Difference(
        PEER,
        "show_cam_on_image",
        "a mask outside [0, 1] or with NaN wraps around to other colors; 0 / 0 where picture and heat map are black",
        "a ValueError; black",
        "255 m is cut to a byte unseen: 1.01 becomes the color of 0.006",
        "utils/image.py",
        "none",
    ),
    Difference(
        PEER,
        "show_factorization_on_image",
        "colors off by up to 1 of 255; writes zeros into the caller's explanations; without colors= an AttributeError "
        "from matplotlib 3.9 on; labels set matplotlib's legend.fontsize for good",
        "colors rounded; nothing of the caller's is changed; no colors= is gist_rainbow, without matplotlib",
        "OpenCV's vectorized HSV to RGB cuts where its plain loop rounds, so that the peer's bytes depend on the width "
        "of the picture and the processor",
        "utils/image.py",
        "none",
    ),
    Difference(
        PEER,
        "scale_cam_image of volumes",
        "cubic splines, which leave [0, 1]: -0.09 to 1.08",
        "trilinear, within [0, 1]",
        "an overshoot shows evidence where there is none",
        "utils/image.py; scipy.ndimage.zoom",
        "strict_compat=True (needs SciPy)",
    ),
    Difference(
        PEER,
        "get_2d_projection",
        "the sign that LAPACK gives, another one on other machines",
        "the sign that agrees with the sum of the channels",
        "a singular vector is free in its sign, a map is not",
        "issues #315, #364",
        "strict_compat=True",
    ),
    Difference(
        PEER,
        "SemanticSegmentationTarget",
        "sums half precision in half precision: infinite above 65504",
        "sums in float32",
        "200 x 200 pixels of score 5 are 200000",
        "utils/model_targets.py",
        "none",
    ),
    Difference(
        PEER,
        "FasterRCNNBoxScoreTarget",
        "more boxes than labels are dropped unseen; a box without area hides the detection; no gradient where nothing "
        "is detected, an error later",
        "a ValueError; overlap 0 with boxes without area; a score of 0 with a gradient of 0",
        "IoU = 0 / 0 is NaN, and the largest of all",
        "utils/model_targets.py",
        "none",
    ),
    Difference(
        PEER,
        "FinerWeightedTarget",
        "0 / 0 in half precision where all the classes compared with are improbable; the number 0.0 without any",
        "computed in float32; a ValueError",
        "1e-9 and probabilities below 3e-8 are zero in float16",
        "utils/model_targets.py",
        "none",
    ),
    Difference(
        PEER,
        "vit_reshape_transform, swinT_reshape_transform",
        "torch's error about shapes; maps with channels last, which torchvision's and timm's Swin give, fail",
        "a ValueError that names the grid; maps with channels last are taken as they are",
        "14 x 14 and 7 x 7 are defaults for 224 pixels only",
        "utils/reshape_transforms.py",
        "none",
    ),
    Difference(
        PEER,
        "metrics",
        "the model runs in its own mode, training or not; targets shorter than the batch leave images out or fail",
        "evaluation mode, the model left as it was; a ValueError, one target for all is taken for each",
        "a score is of the model as it is used",
        "metrics/perturbation_confidence.py",
        "none",
    ),
    Difference(
        PEER,
        "DropInConfidence, IncreaseInConfidence with return_visualization=True",
        "a TypeError",
        "the scores and the changed images",
        "the sign of a tuple is asked for",
        "metrics/cam_mult_image.py",
        "none",
    ),
    Difference(
        PEER,
        "ROAD: noise",
        "from torch's global generator, so that no two runs agree",
        "one field for all images, from the argument seed= (0)",
        "a score that repeats, and does not depend on the batch",
        "metrics/road.py",
        "strict_compat=True",
    ),
    Difference(
        PEER,
        "ROAD: percentile='auto'",
        "ROADMostRelevantFirst fills in the pixels below Otsu's threshold, ROADLeastRelevantFirst those above it",
        "the most and the least relevant ones, as the names say",
        "OpenCV's mask is 255 above the threshold, and 0 means to fill in: kept = [m > t] in place of [m <= t]",
        "metrics/perturbation_confidence.py",
        "strict_compat=True",
    ),
    Difference(
        PEER,
        "ROAD where no pixel is kept (a map that is the same everywhere)",
        "a singular system: NaN, or any numbers",
        "each channel's mean",
        "Σ w (x_i - x_j) = 0 for all pixels has every constant for a solution",
        "metrics/road.py",
        "none",
    ),
    Difference(
        PEER,
        "NoisyLinearImputer(weighting=)",
        "ignored",
        "a ValueError where it is not the default",
        "a result for other weights than were asked for",
        "metrics/road.py",
        "strict_compat=True",
    ),
    Difference(
        PEER,
        "metrics.ARCC",
        "a ModuleNotFoundError, though the README imports it",
        "the module metrics.arcc by both names",
        "the file is called arcc.py; the metric is the harmonic mean, not the geometric one that its text names",
        "README; metrics/arcc.py",
        "none",
    ),
    Difference(
        PEER,
        "DeepFeatureFactorization, run_dff_on_image",
        "writes zeros over the caller's NaN; hooks stay in the model; an autograd graph of the forward is made; "
        "a layer that never ran is an IndexError; run_dff_on_image without reshape_transform= fails",
        "nothing of the caller's is changed; a ValueError; no reshape_transform is none",
        "the default there is typing.Optional[Callable] itself, which is then called; the factors are scikit-learn's, "
        "from the same start by the same steps",
        "feature_factorization/deep_feature_factorization.py",
        "none",
    ),
    Difference(
        PEER,
        "GuidedBackpropReLUModel",
        "ReLU modules only: plain gradients through functional ReLUs and ReLU6; swaps the modules and puts one shared "
        "ReLU back; fills .grad of all parameters, and adds up that of the images from call to call; "
        "target_category=None of several images is an IndexError, and the ReLUs stay swapped",
        "every ReLU that runs; the model, its mode and all .grad as they were; the first image's class; a ValueError "
        "where no ReLU runs",
        "the rule is of the function, not of the module: R_in = R_out [R_out > 0] [x > 0]",
        "Springenberg 2015, arXiv:1412.6806, fig. 1",
        "none",
    ),
)
