"""What is true of the images: their labels, boxes or masks, as people said."""
