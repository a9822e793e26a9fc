"""Processes of this machine: supervised children, signals, hand-over of sockets."""
