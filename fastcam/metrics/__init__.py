"""Metrics of maps: each a pure function a tensor at a time and a `torchmetrics.Metric`; `Evaluation` runs many.

>>> from fastcam.metrics import list_metrics
>>> list_metrics("*box*")
['box_iou', 'max_box_acc', 'max_box_acc_v2']
"""

from .boxes import box_iou, max_box_iou, max_component_iou, pad_boxes
from .complexity import ADCC, Coherency, Complexity, Sparseness, adcc, coherency, complexity, pearson, sparseness
from .evaluation import Evaluation
from .faithfulness import (
    AverageDrop,
    AverageDropInDeletion,
    AverageGain,
    IncreaseInConfidence,
    WinRate,
    average_drop,
    average_drop_in_deletion,
    average_gain,
    increase_in_confidence,
    win_rate,
)
from .localization import (
    BoxIoU,
    EnergyPointingGame,
    LocalizationAccuracy,
    PointingGame,
    center_maps,
    energy_pointing_game,
    pointing_game,
)
from .perturbation import ROAD, Deletion, Insertion, auc, pixel_counts, road
from .protocols import PROTOCOLS, Protocol
from .registry import METRICS, list_metrics
from .robustness import (
    MaxSensitivity,
    Randomization,
    cascade,
    cascading_randomization,
    max_sensitivity,
    spearman,
    ssim,
)
from .thresholds import MaxBoxAcc, MaxBoxAccV2, PxAP, pixel_histograms, pxap

__all__ = [
    "ADCC",
    "METRICS",
    "PROTOCOLS",
    "ROAD",
    "AverageDrop",
    "AverageDropInDeletion",
    "AverageGain",
    "BoxIoU",
    "Coherency",
    "Complexity",
    "Deletion",
    "EnergyPointingGame",
    "Evaluation",
    "IncreaseInConfidence",
    "Insertion",
    "LocalizationAccuracy",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "MaxSensitivity",
    "PointingGame",
    "Protocol",
    "PxAP",
    "Randomization",
    "Sparseness",
    "WinRate",
    "adcc",
    "auc",
    "average_drop",
    "average_drop_in_deletion",
    "average_gain",
    "box_iou",
    "cascade",
    "cascading_randomization",
    "center_maps",
    "coherency",
    "complexity",
    "energy_pointing_game",
    "increase_in_confidence",
    "list_metrics",
    "max_box_iou",
    "max_component_iou",
    "max_sensitivity",
    "pad_boxes",
    "pearson",
    "pixel_counts",
    "pixel_histograms",
    "pointing_game",
    "pxap",
    "road",
    "sparseness",
    "spearman",
    "ssim",
    "win_rate",
]
