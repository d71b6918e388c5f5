"""Models in hand: a trained network with all that stands between it and the user's rows, kept, loaded and asked.

`model` is the value, `encoding` how rows become inputs and outputs words, `folder` the files, `rows` what may be asked
about; `nightly` trains by a bundle's policy on other data, and `promise` holds the result against its evidence.
"""
