"""From candidates to what is shown: their value, and the slate that is made of them."""
