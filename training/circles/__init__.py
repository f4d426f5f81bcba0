"""Circles: clusters of the item space on two levels, with names and with ids that last."""
