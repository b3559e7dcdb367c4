"""Parser: read a normalised answer into a tree."""
