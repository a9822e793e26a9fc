"""What front ends cost an image, and what they gain where one Python process is the limit."""
