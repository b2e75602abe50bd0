"""Triton twins of the ops, each under the op's name; imported where a GPU, or Triton's interpreter, runs them."""
