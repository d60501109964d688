"""Tokens that every text tokenizer of these models has behind its own vocabulary."""

IM_START = "<|im_start|>"
QWEN_TOKENS = ("<|endoftext|>", IM_START, "<|im_end|>")
MUSICALITY_TAGS = (
    "[Musicality-very-high]",
    "[Musicality-high]",
    "[Musicality-medium]",
    "[Musicality-low]",
    "[Musicality-very-low]",
    "[Pure-Music]",
)
