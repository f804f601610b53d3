"""One recording file to mono samples: decoders, their sandbox, resampling, remarks.

A file's header is read in `file_headers`; what is computed from samples is in `features`.
"""

PUBLIC = ("decoders", "mono", "recording", "remarks", "resample", "sandbox")
"""What other rooms may import."""
