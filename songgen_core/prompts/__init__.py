"""From a recording or a stored example to the prompt that a song is asked to resemble."""
