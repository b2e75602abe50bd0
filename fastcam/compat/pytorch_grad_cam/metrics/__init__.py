"""Metrics of maps by pytorch-grad-cam's names: `cam_mult_image`, `perturbation_confidence`, `road`, `arcc`."""
