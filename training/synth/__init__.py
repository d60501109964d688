"""A synthesiser of songs: random requests, scores with a label for every frame, and their sound."""

from .compose import compose
from .corpus import random_request
from .render import render
from .request import Key, Line, Part, Request
from .score import Score

__all__ = ["Key", "Line", "Part", "Request", "Score", "compose", "random_request", "render"]
