"""The messages of the gRPC protocols, made from the `.proto` files beside it."""
