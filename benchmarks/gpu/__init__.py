"""ResNet-50 on one device: images/s end to end against the in-process limit, 1 to 8 processes."""
