"""Words for the model: lyrics, description tags and their tokens."""
