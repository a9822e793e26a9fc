"""The protocols of a worker: its own, TensorFlow Serving's REST, the Open Inference Protocol."""
