"""Victims on the scenes world: models of four tasks, small and real, each built on a CLIP's image tower."""
