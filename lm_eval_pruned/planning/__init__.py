"""Cost model: memory, FLOPs and time that pruning will take, estimated from shapes without reading weights."""
