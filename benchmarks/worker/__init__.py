"""One worker against other model servers, with the same model and the same images."""
