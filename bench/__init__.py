"""Speed and memory of fastcam beside its floors and its peers: `python -m bench`."""
