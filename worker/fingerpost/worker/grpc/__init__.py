"""gRPC on a worker: the Open Inference Protocol, TensorFlow Serving's, health, reflection, ORCA.

Imported only by a worker with a gRPC port; needs the extra `grpc`.
"""
