"""Concepts of a batch by pytorch-grad-cam's names: `deep_feature_factorization`."""
