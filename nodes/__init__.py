"""The ComfyUI side: every file here is a thin layer over songgen_core."""

from comfy_api.v0_0_2 import ComfyExtension, io

from . import (
    analysis,
    codec,
    generate,
    host,
    loaders,
    prompts,
    render,
    save,
    song,
    stems,
    subtitles,
    text,
    video,
    video_clip,
)


class SongGenExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            song.Song,
            loaders.LoadLeVoModel,
            text.LyricsFormatter,
            text.DescriptionTags,
            prompts.AudioPrompt,
            prompts.GenrePrompt,
            generate.GenerateTokens,
            render.DiffusionRender,
            render.SplitStems,
            save.SaveAudio,
            stems.SeparateAudio,
            codec.EncodeAudioTokens,
            codec.SaveTokens,
            codec.LoadTokens,
            analysis.AnalyzeSong,
            analysis.BurnSubtitles,
            subtitles.SaveSubtitles,
            analysis.Visualizer,
            video.CoverArt,
            video.CutToBeat,
            video_clip.VideoClip,
        ]


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls once at its start."""
    host.register_model_folders()
    return SongGenExtension()
