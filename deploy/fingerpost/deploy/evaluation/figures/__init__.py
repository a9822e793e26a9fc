"""The figures of each task, from what is true and what a model answered."""
