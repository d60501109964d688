"""What a finished song is like: beats, sections, loudness, times of its lines, and how they are shown."""
