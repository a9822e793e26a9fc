"""What a call of gRPC costs a worker, compared with a bare server of grpcio."""
