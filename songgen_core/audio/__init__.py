"""Waveforms after the networks: peak limiting, and audio files on PyAV."""
