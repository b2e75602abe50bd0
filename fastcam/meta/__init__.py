"""Methods of methods: they run another one on versions of the images and combine its maps. One file a kind.

`CAM(model, Sess("gradcam"))`, or by name: `CAM(model, "sess(gradcam)")`. They nest: `Evet(Sess("gradcam"))`.
"""

from .averages import AugSmooth, Integrated, Smooth
from .base import Meta
from .evet import Evet
from .names import METAS, list_meta_methods, options_of, parse, resolve, split
from .refine import Refine
from .sess import Sess

__all__ = [
    "METAS",
    "AugSmooth",
    "Evet",
    "Integrated",
    "Meta",
    "Refine",
    "Sess",
    "Smooth",
    "list_meta_methods",
    "options_of",
    "parse",
    "resolve",
    "split",
]
