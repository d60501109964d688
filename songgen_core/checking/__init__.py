"""Does a model do what it is asked? Songs from fixed requests, measured by their sound alone."""
