"""Items that arrived, changed or went since the bundle was made, and how all workers see them."""
