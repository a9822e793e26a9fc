"""Tasks: from a model's outputs to the answers for its images, as JSON or binary."""
