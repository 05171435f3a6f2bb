"""The tagger that reads word after word and looks two words ahead, so that it streams."""

from dataclasses import replace

from rnnx.recipes import tagger

RECIPE = replace(
    tagger.RECIPE,
    name="streaming_tagger",
    title="the same word after word, two words late",
    cell="gru",
    train=tagger.train,
    streams=True,
)
