"""A song request -> the two texts that the language model reads, for both model generations."""

from dataclasses import dataclass

from ..configs import OutputType, TextVersion

_BEST = "[Musicality-very-high]"
_NULL_DESCRIPTION = "[Musicality-very-low], ."
_INSTRUMENTAL = "[Pure-Music]"
_NO_LYRICS = "."


@dataclass(frozen=True)
class PromptTexts:
    """Texts of the conditional row; the null row has no lyrics. None means 'no text'."""

    lyrics: str | None
    description: str | None

    @property
    def null_description(self) -> str | None:
        """Quirk: guidance leads away from low musicality where the song's text asks for very high."""
        return _NULL_DESCRIPTION if self.description and _BEST in self.description else None


def prompt_texts(
    lyrics: str,
    description: str | None,
    version: TextVersion,
    output: OutputType = "mixed",
    *,
    literal: bool = False,
) -> PromptTexts:
    """Texts as the model was trained to read them; `description` None means absent.

    `literal` repeats two slips of the reference (NUMERICS.md): accompaniment without a description loses its
    tags in v2, and accompaniment loses its lyrics in v1.
    """
    style = None if description is None else description.lower()
    instrumental = output == "bgm"
    if version == "v1":
        return PromptTexts(_NO_LYRICS if instrumental and literal else collapse_blanks(lyrics), style)
    if not instrumental:
        return PromptTexts(collapse_blanks(lyrics), f"{_BEST}, {'.' if style is None else style}")
    if style is None and literal:
        return PromptTexts(_NO_LYRICS, ".")
    return PromptTexts(_NO_LYRICS, f"{_BEST}, {_INSTRUMENTAL}, {'.' if style is None else style}")


def collapse_blanks(text: str) -> str:
    """Pairs of blanks to one blank, a single pass: three blanks become two (as the models were trained)."""
    return text.replace("  ", " ")
