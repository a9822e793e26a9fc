"""The protocols of a worker: Fingerpost's own, TensorFlow Serving's REST, the Open Inference Protocol."""
