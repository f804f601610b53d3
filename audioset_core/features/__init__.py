"""Mono samples to log-mel patches, on the CPU and on a GPU.

Decoding is in `audio`, the network in `inference`.
"""

PUBLIC = ("config", "log_mel", "mel", "patch_reader", "shared_reader", "torch_log_mel")
"""What other rooms may import."""
