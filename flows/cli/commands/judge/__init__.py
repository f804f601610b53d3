"""Commands about what people judged: samples, verdicts, truth files, thresholds that follow."""

PUBLIC = ()
"""What other rooms may import."""
