"""`python -m fastcam`: the command line."""

from __future__ import annotations

from fastcam.cli import main

if __name__ == "__main__":
    main()
