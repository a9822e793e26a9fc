"""How good a model is: labelled images in, the figures of its task out."""
