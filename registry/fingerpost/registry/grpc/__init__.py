"""What servers of gRPC have in common: workers, and proxies that serve xDS.

Needs grpcio, of the extras `grpc` and `xds`; imported only by servers with such a port.
"""
