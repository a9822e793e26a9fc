"""TensorFlow: SavedModels, Keras files and frozen graphs."""
