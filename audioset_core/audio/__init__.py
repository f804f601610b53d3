"""One recording file to mono samples: decoders, their sandbox, resampling, remarks.

What a file's header states is read in `file_headers`; what becomes of samples is in `features`.
"""

PUBLIC = ("decoders", "recording", "remarks", "sandbox")
"""What other rooms may import."""
