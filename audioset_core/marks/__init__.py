"""Marks that people made in recordings, read from the files of annotation programs.

mark           a mark: which recording, when, which class, present or absent, by whom
read           any file: its format, its marks, and what in it could not be understood
tables         CSV, TSV and Parquet: Raven, crowsetta, DCASE, BirdNET, reviews, own exports
labels         Audacity's label tracks, WebVTT captions, Praat's TextGrids
label_studio   Label Studio's JSON, and lists of objects
names          the names that a recording may have, and numbers as people write them
"""

PUBLIC = ("mark", "names", "read", "tables")
"""What other rooms may import."""
