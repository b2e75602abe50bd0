"""Why tests of the peers' own suites stay failing on fastcam, and are meant to."""

from __future__ import annotations

# The peer, the test's id in its suite (* stands for anything), the reason.
REASONS: dict[str, dict[str, str]] = {
    "pytorch-grad-cam": {},
    "torchcam": {},
}
