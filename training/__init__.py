"""How the embedded model `pocket` is made: sounds, mixtures, the teacher's scores, training.

What belongs here: everything that is needed to make the weights again, and nothing that labels.
`python -m training --help` lists the steps; README.md is the model card.
"""
