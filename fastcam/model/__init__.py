"""Networks, and no formulas: one-forward capture, the pooled tail, the cut into head and tail."""
