"""Colours of a cover: a mood is chosen by the words of the description, its colours are mixed as light.

Letters: K colours.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..text.tags import Description, keywords_in

_GAMMA = 2.2


@dataclass(frozen=True)
class Mood:
    """Colours as #rrggbb, far and near end of the ground, then what glows in it, then the ink of lines."""

    words: frozenset[str]
    ground: tuple[str, str]
    glows: tuple[str, ...]
    ink: str
    energy: float = 0.0  # added to that of the sound


def _mood(words: str, ground: str, glows: str, ink: str, energy: float = 0.0) -> Mood:
    first, second = ground.split()
    return Mood(frozenset(words.split(", ")), (first, second), tuple(glows.split()), ink, energy)


MOODS = {
    "night": _mood(
        "dark, haunting, mysterious, tense, anxious, deep, trip hop, trap, emo",
        *("#07080f #1b1740", "#4a2c7b #b02a67 #2b3fa0", "#f4e6f0"),
    ),
    "fire": _mood(
        "aggressive, angry, intense, powerful, rough, raw, "
        "gritty, metal, heavy metal, hard rock, punk, grunge, rock",
        *("#14060a #57101a", "#c8271f #ff6a2b #7a0f3a", "#ffe2b8", 0.25),
    ),
    "rain": _mood(
        "sad, melancholic, lonely, heartbroken, wistful, cold, blues, bittersweet, sentimental, emotional",
        *("#0c1a2c #2d4f70", "#5f86a8 #93aebd #33456f", "#eef1ea", -0.15),
    ),
    "mist": _mood(
        "calm, peaceful, relaxed, gentle, tender, soft, "
        "delicate, ambient, new age, chillout, whispery, smooth",
        *("#e9efe6 #a9c9c4", "#7fb0b5 #f3d9b8 #c6d7ef", "#1f4450", -0.25),
    ),
    "summer": _mood(
        "happy, cheerful, joyful, carefree, playful, bright, sweet, "
        "pop, funk, disco, reggae, ska, latin, samba, salsa",
        *("#ffc857 #ff7a4f", "#ff4f79 #ffe08a #37b6c9", "#fff8e7", 0.1),
    ),
    "dawn": _mood(
        "hopeful, uplifting, inspiring, triumphant, epic, proud, gospel, confident, pop rock, indie, britpop",
        *("#16245c #6d4b93", "#f2855e #ffc46b #3f63b5", "#fff1dc"),
    ),
    "rose": _mood(
        "romantic, loving, sensual, passionate, intimate, r&b, "
        "soul, neo soul, tango, flamenco, bossa nova, ballad",
        *("#2b0a20 #8a1f4f", "#e2557a #f7a08a #5c1a63", "#ffe9df"),
    ),
    "dream": _mood(
        "dreamy, airy, nostalgic, light, breathy, lo-fi, indie pop, k-pop, j-pop, psychedelic, electropop",
        *("#2f2170 #8f5fb0", "#f0a3c8 #8fd8dc #ffd3a8", "#fdf4ff"),
    ),
    "neon": _mood(
        "energetic, euphoric, electronic, edm, techno, house, "
        "trance, dance, synthwave, synth-pop, dubstep, vibrant",
        *("#05051a #1c0d52", "#ff2e93 #00c8f0 #7a2bff", "#eafcff", 0.25),
    ),
    "earth": _mood(
        "warm, mellow, acoustic, folk, country, bluegrass, singer-songwriter, reflective, rich, folk rock",
        *("#f2e3c6 #d99a5b", "#b5572e #f5c98a #7e8f5a", "#3a1f12", -0.1),
    ),
    "forest": _mood(
        "celtic, chinese style, world music, afrobeat, clear, crisp, mandopop, c-pop",
        *("#0b1f1b #1f5a48", "#58a37c #d9c488 #17485c", "#f4f0dd"),
    ),
    "gold": _mood(
        "dramatic, jazz, swing, big band, classical, opera, soundtrack, orchestra, strings, piano",
        *("#0f0d0c #38302a", "#b8893b #6e2f2a #8a8378", "#f6e7c4"),
    ),
}


def words_of(description: str) -> Description:
    """The keywords of tags or sentences; a tempo has no colour and is not read, however wrong it may be.

    Raises UserError for control characters and over 2,000 characters.
    """
    return keywords_in(re.sub("[0-9]", "_", description))


def mood_for(description: str, generator: torch.Generator) -> Mood:
    """The mood that most words of a description belong to; drawn by lot where none does. Raises UserError."""
    found = words_of(description)
    # What it feels like says more about colours than its genre, and that more than what is played.
    weights = {
        **dict.fromkeys(found.instruments, 1),
        **dict.fromkeys((*found.timbre, *found.genre), 2),
        **dict.fromkeys(found.emotion, 3),
    }
    moods = list(MOODS.values())
    scores = [sum(weights.get(word, 0) for word in mood.words) for mood in moods]
    best = [mood for mood, score in zip(moods, scores) if score == max(scores)]
    return best[int(torch.randint(len(best), (1,), generator=generator))]


def to_light(colour: str) -> Tensor:
    """#rrggbb -> [3] in 0..1, linear: mixtures of light are as bright as what is mixed."""
    return (torch.tensor([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255) ** _GAMMA


def to_picture(light: Tensor) -> Tensor:
    """Linear light -> values of a picture in 0..1."""
    return light.clamp(0, 1) ** (1 / _GAMMA)


def brightness(light: Tensor) -> Tensor:
    """[..., 3] linear light -> [...] how bright it seems, 0..1."""
    return (light * torch.tensor([0.2126, 0.7152, 0.0722])).sum(-1).clamp(0, 1) ** (1 / _GAMMA)
