"""Clips of a song for video models: which pictures, and which samples belong to them.

Letters: C channels, N samples of the song, n samples of the clip.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from ..errors import AudioError
from .envelopes import frame_count

# A video model makes k * step + 1 pictures; "any" number is a step of 1.
GRIDS = {"any": 1, "4k+1 (Wan, HuMo)": 4, "8k+1 (LTX)": 8}
LONGEST = 36000.0  # seconds that can be asked for


@dataclass(frozen=True)
class Clip:
    """`frames` pictures at `fps` from the moment `start` of a song of `song_seconds`; times in seconds.

    Every moment t is the sample round(t * rate), for the end of a clip as for the start of the next one:
    clips that follow each other give the song sample for sample, however many they are.
    """

    start: float
    frames: int
    fps: float
    song_seconds: float

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def next_start(self) -> float:
        """Where this clip ends, and the next one begins."""
        return self.start + self.seconds

    @property
    def silence(self) -> float:
        """Seconds at the end of the clip for which there is no song."""
        return max(0.0, self.next_start - self.song_seconds)

    @property
    def is_last(self) -> bool:
        """Whether less than half a picture of song is left after the clip."""
        return not _is_enough(self.song_seconds - self.next_start, self.fps)

    def cut(self, audio: Tensor, sample_rate: int) -> Tensor:
        """[..., N] of any rate -> [..., n], the samples of this clip; silence where the audio has ended."""
        first, last = (round(moment * sample_rate) for moment in (self.start, self.next_start))
        part = audio[..., first:last]
        return pad(part, (0, last - first - part.shape[-1]))

    def describe(self) -> str:
        """What the clip holds and how to go on, one fact a line."""
        lines = [
            f"{self.frames} pictures at {self.fps:g} per second: {self.seconds:.6g} s of sound,"
            f" from {self.start:.6g} s to {self.next_start:.6g} s of {self.song_seconds:.6g} s"
        ]
        if self.silence > 0:
            lines.append(f"padded: the song ends {self.silence:.3g} s before the clip; silence fills it")
        rest = self.song_seconds - self.next_start
        if self.is_last:
            lines.append("the song ends here: this is the last clip")
            if rest >= 0.0005:
                lines.append(f"its last {rest:.3f} s, less than half a picture, are left out")
        else:
            lines.append(f"trimmed: the song goes on, the next clip starts at {self.next_start:.10g} s")
        return "\n".join(lines)


def plan_clip(
    song_seconds: float,
    *,
    start: float = 0.0,
    seconds: float = 0.0,
    fps: float = 16.0,
    grid: str = "any",
    max_frames: int = 0,
) -> Clip:
    """The clip of `seconds`, or to the end of the song for 0, that begins at `start`.

    Its pictures last as long as what was asked for, or as what is left of the song if that is less, to the
    nearest picture and then up to the grid: less than half a picture of the song's end may be left out, and
    silence, less than one step of the grid, may follow it. `max_frames` > 0 is the most that the model makes
    at once; it is rounded down to the grid.
    Raises AudioError for times outside the song or over LONGEST, and unless fps is 1..120 and `grid` one of
    GRIDS.
    """
    if grid not in GRIDS:
        raise AudioError(f"grid is {grid!r}; choose one of {', '.join(GRIDS)}")
    if not (start >= 0 and seconds >= 0 and max_frames >= 0):
        raise AudioError(
            f"start is {start}, seconds {seconds}, max_frames {max_frames}; none of them can be below 0"
        )
    if seconds > LONGEST:
        raise AudioError(f"seconds is {seconds:g}; choose 0 to {LONGEST:g}")
    wanted = frame_count(seconds, fps)
    left = song_seconds - start
    if not _is_enough(left, fps):
        raise AudioError(
            f"start is {start:g} s, but the song ends at {song_seconds:g} s; choose an earlier start"
        )
    there = frame_count(left, fps)
    frames = min(wanted, there) if seconds > 0 else there
    step = GRIDS[grid]
    frames = -(-(frames - 1) // step) * step + 1
    if max_frames > 0:
        frames = min(frames, (max_frames - 1) // step * step + 1)
    return Clip(start, frames, fps, song_seconds)


def _is_enough(seconds: float, fps: float) -> bool:
    """Less than half a picture is too little for a clip."""
    return seconds * fps >= 0.5
