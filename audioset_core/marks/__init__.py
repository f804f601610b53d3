"""What people marked in recordings, read from the files in which their programs keep it.

mark           a mark: which recording, when, which class, present or absent, by whom
read           any file: what it is, its marks, and what of it could not be understood
tables         CSV, TSV and Parquet: Raven, crowsetta, DCASE, BirdNET, reviews, own exports
labels         Audacity's label tracks, WebVTT captions, Praat's TextGrids
label_studio   Label Studio's JSON, and lists of objects
names          what a recording may be called, and numbers as people write them
"""
