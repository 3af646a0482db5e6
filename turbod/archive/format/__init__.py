"""The objects' format: names, frames, index. Written, read and checked; pure but for loading."""
