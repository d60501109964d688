"""How the mini model was made: synthetic songs and one program per stage. Nothing in the core needs it."""
