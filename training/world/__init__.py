"""A synthetic interest economy: who likes what, what is shown to whom, and what comes of it."""
