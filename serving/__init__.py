"""Online: a bundle becomes answers."""
