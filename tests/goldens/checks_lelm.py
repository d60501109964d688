"""Checks of the language model's cases, one function per `kind`."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from compare import assert_close, assert_same, tensors
from torch import Tensor

from songgen_core.checkpoint.files import read_state_dict
from songgen_core.checkpoint.lm_config import read_lm_config
from songgen_core.checkpoint.loader import lelm_state, load_lelm
from songgen_core.configs import LeLMConfig
from songgen_core.generation.autoregressive import decode_one_frame, generate, next_logits, prefill
from songgen_core.generation.conditions import banned_codes, make_conditions, prompt_codes_of
from songgen_core.generation.delay import DelayedStreams, apply_delay, delay_mask, undo_delay
from songgen_core.generation.sampling import SamplingOptions, ban, guide, penalize_repetition, probabilities
from songgen_core.layers.norm import RMSNorm
from songgen_core.layers.rope import rotary_table, rotate_half_split
from songgen_core.models.lelm import LeLM
from songgen_core.text.bpe import QWEN2_FOLDER, TextTokenizers, load_tokenizers
from songgen_core.text.lyrics import detect_language
from songgen_core.text.request import PromptTexts, prompt_texts

CPU = {"dtype": torch.float32, "device": torch.device("cpu")}


@cache
def load_case_model(
    weights: Path, config: Path, tokenizer: Path, version: str
) -> tuple[LeLM, TextTokenizers, LeLMConfig]:
    state = read_state_dict(weights)
    tokenizers = load_tokenizers(tokenizer, version)
    shapes = {name.replace("audiolm.", ""): tuple(t.shape) for name, t in state.items()}
    lm_config = read_lm_config(config, shapes, tokenizers.pad_id, version)
    return load_lelm(weights, lm_config), tokenizers, lm_config


def case_model(folder: Path, meta: dict) -> tuple[LeLM, TextTokenizers]:
    paths = ((folder / meta[k]).resolve() for k in ("model", "model_config", "tokenizer"))
    lm, tokenizers, config = load_case_model(*paths, meta["version"])
    lm.config = replace(config, delays=tuple(meta.get("delays", config.delays)))  # the model is shared
    ids = meta["ids"]
    assert (lm.config.eos_id, lm.config.special_id) == (ids["EOS"], ids["SPECIAL"])
    assert tokenizers.pad_id == ids["PAD"]
    return lm, tokenizers


def check_weights(folder: Path, meta: dict) -> None:
    state = read_state_dict(folder / "weights.safetensors")
    assert {n: list(t.shape) for n, t in state.items()} == {n: k["shape"] for n, k in meta["keys"].items()}
    renamed = lelm_state(state, "case")
    assert len(renamed) == sum(k["used"] for k in meta["keys"].values())


def check_tokenizer(folder: Path, meta: dict) -> None:
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    assert len(cases) == meta["count"]
    vocabulary = tokenizer_folder(folder, meta)
    for version in ("v1", "v2"):
        tokenizers = load_tokenizers(vocabulary, version)
        sizes = {k: rows[version] for k, rows in meta["vocab_rows"].items()}
        assert {"description": tokenizers.lyrics.size, "type_info": tokenizers.description.size} == sizes
        for case in cases:
            expected = case[version]
            lyrics = tokenizers.lyrics.encode(case["text"])
            structure = tokenizers.structure(lyrics)[: len(expected["description_structure"])]
            assert lyrics == expected["description_ids"], case["name"]
            assert structure == expected["description_structure"], case["name"]
            assert tokenizers.description.encode(case["text"]) == expected["type_info_ids"], case["name"]


def tokenizer_folder(folder: Path, meta: dict) -> Path:
    """The vocabulary that the case names, else one of its size: beside the case or the shipped one."""
    named = [meta["tokenizer"]] if "tokenizer" in meta else re.findall(r"\.\./\w+", meta["what"])
    beside = [p.parent for p in sorted(folder.parent.glob("*/vocab.json"))]
    candidates = [*(folder / name for name in named), folder, *beside, QWEN2_FOLDER]
    for candidate in (c for c in candidates if (c / "vocab.json").exists()):
        if len(json.loads((candidate / "vocab.json").read_text(encoding="utf-8"))) == meta["pad_id"]:
            return candidate
    raise AssertionError(f"no tokenizer of {meta['pad_id']} entries in {candidates}")


def check_preprocess(folder: Path, meta: dict) -> None:
    recorded = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    assert len(recorded["text"]) == meta["count"]
    for case in recorded["text"]:
        item = case["item"]
        texts = prompt_texts(
            item["gt_lyric"], item.get("descriptions"), case["version"], case["generate_type"], literal=True
        )
        actual = (texts.lyrics, texts.description, None, texts.null_description)
        expected = tuple(case[k] for k in ("lyrics", "type_info", "null_lyrics", "null_type_info"))
        assert actual == expected, case
    for case in recorded["language"]:
        assert detect_language(case["text"]) == case["lang"], case


def check_conditioning(folder: Path, meta: dict) -> None:
    lm, tokenizers = case_model(folder, meta)
    recorded, atol = tensors(folder, "data"), meta["tolerance_float32_max_abs"]["conditioning"]
    for case in meta["inputs"]:
        key = f"{case['index']}/"
        prompt = recorded.get(key + "prompt_in")
        texts = PromptTexts(case["lyrics"], case["type_info_text"])
        conditions = make_conditions(texts, prompt, tokenizers, lm.config)
        assert_same(conditions.lyrics, recorded[key + "description_ids"], key + "lyrics ids")
        assert_same(conditions.structure, recorded[key + "structure"], key + "structure")
        assert_same(conditions.description, recorded[key + "type_info_ids"], key + "description ids")
        assert_same(prompt_codes_of(prompt, lm.config), recorded[key + "prompt_tokens"], key + "prompt")
        prefix = [recorded[key + n] for n in ("description", "prompt_1", "prompt_2", "type_info")]
        check_prefix(lm, conditions, prefix, atol, key)


def check_prefix(lm: LeLM, conditions, parts: list[Tensor], atol: float, what: str) -> None:
    lyrics, prompt, prompt_sub, description = parts
    main, sub = lm.conditioner(conditions)
    assert_close(main, torch.cat([lyrics, prompt, description], 1), atol, what + "main prefix")
    assert_close(sub, torch.cat([lyrics, prompt_sub, description], 1), atol, what + "sub prefix")


def check_forward(folder: Path, meta: dict) -> None:
    lm, tokenizers = case_model(folder, meta)
    recorded, tolerance = tensors(folder, "data"), meta["tolerance_float32_max_abs"]
    inputs = meta["inputs"]
    prompt = torch.tensor([inputs["prompt_tokens"]]) if inputs.get("prompt_tokens") else None
    texts = PromptTexts(inputs["lyrics"], inputs["type_info_text"])
    conditions = make_conditions(texts, prompt, tokenizers, lm.config)
    assert lm.config.prefix_length == meta["prefix_length"]
    columns = recorded["columns"][0]  # (3, S)
    cache = lm.make_cache(2, meta["kv_length_after_last_step"], **CPU)
    with torch.inference_mode(), record_outputs(lm) as seen:
        steps = [prefill(lm, conditions, columns[:, 0], cache)]
        at_prefill = dict(seen)
        steps += [decode_one_frame(lm, column, cache) for column in columns[:, 1:].unbind(1)]
        whole = lm(columns.expand(2, -1, -1), prefix=lm.conditioner(conditions))
    assert cache.main.length == meta["kv_length_after_last_step"]
    assert_close(torch.stack(steps, 2), recorded["logits"], tolerance["logits"], "logits")
    assert_close(whole, recorded["logits"], tolerance["logits"], "logits of one pass without a cache")
    for name, actual in prefill_tensors(at_prefill).items():
        if name in recorded:
            assert_close(actual[:1], recorded[name], tolerance["hidden"], name)
    for name, tensor in {
        "kv1_layer0_k": cache.main.keys[0],
        "kv1_layer0_v": cache.main.values[0],
        "kv2_layer0_k": cache.sub.keys[0],
    }.items():
        if name in recorded:
            assert_close(tensor[:1], recorded[name], tolerance["hidden"], name)
    if "logits_half" in recorded:
        check_half(lm, conditions, columns, recorded["logits_half"])


def check_half(lm: LeLM, conditions, columns: Tensor, expected: Tensor) -> None:
    """The whole network in float16; informative, as rounding differs between kernels."""
    half = LeLM(lm.config)
    half.load_state_dict(lm.state_dict())
    half.half()
    with torch.inference_mode():
        logits = half(columns.expand(2, -1, -1), prefix=half.conditioner(conditions))
    assert_close(logits, expected, 0.02 * expected.abs().max().item(), "float16 logits")


class record_outputs:
    """Keep the last output of every module (and the input of the stacks) under its name."""

    def __init__(self, lm: LeLM) -> None:
        self.lm, self.handles, self.seen = lm, [], {}

    def __enter__(self) -> dict[str, Tensor]:
        for name, module in self.lm.named_modules():
            self.handles.append(module.register_forward_hook(self.keep(name)))
        return self.seen

    def keep(self, name: str):
        def hook(module, args, output) -> None:
            self.seen[name] = output
            if args:
                self.seen[name + ".input"] = args[0]

        return hook

    def __exit__(self, *error) -> None:
        for handle in self.handles:
            handle.remove()


def prefill_tensors(seen: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {
        "prefill_in_1": seen["main.input"],
        "prefill_in_2": seen["bridge.input"].chunk(2, -1)[0],
        "prefill_hidden_1": seen["main"],
        "prefill_bridge": seen["bridge"],
        "prefill_hidden_2": seen["sub"],
        "prefill_t1_layer0_norm": seen["main.layers.0.input_layernorm"],
        "prefill_t1_layer0_attn": seen["main.layers.0.self_attn"],
        "prefill_t1_layer0_mlp": seen["main.layers.0.mlp"],
    }
    layers = (n for n in seen if n.startswith("main.layers.") and n.count(".") == 2)
    return {**out, **{f"prefill_t1_layer{n.split('.')[2]}_out": seen[n] for n in layers}}


def check_pattern(folder: Path, meta: dict) -> None:
    recorded = tensors(folder, "data")
    for case in meta["inputs"]:
        key, delays, frames = f"{case['index']}/", case["delays"], case["T"]
        special = recorded[key + "sequence"][0, 0, 0].item()  # column 0 never holds a code
        assert_same(apply_delay(recorded[key + "codes"], delays, special), recorded[key + "sequence"], key)
        mask = delay_mask(frames, delays)
        assert_same(mask, recorded[key + "mask"], key + "mask")
        assert mask.shape[-1] == case["S"]
        assert mask.any(0).nonzero()[0].item() == case["first_step_of_t0"]
        random = recorded[key + "sequence_random"]
        assert_same(undo_delay(random, delays), recorded[key + "reverted"], key + "reverted")
        cut = random.clone()
        cut[..., case["cut_after_columns"] :] = special
        assert_same(undo_delay(cut, delays), recorded[key + "reverted_cut"], key + "reverted_cut")


def check_rope_rms(folder: Path, meta: dict) -> None:
    recorded, tolerance = tensors(folder, "data"), meta["tolerance_float32_max_abs"]
    for case in meta["inputs"]:
        key = f"{case['index']}/"
        rotary = rotary_table(recorded["positions"], case["head_dim"], case["theta"], torch.float32)
        for name, table in zip(("cos", "sin"), rotary):
            assert_close(table, recorded[key + name], tolerance["cos/sin"], key + name)
        for name in ("q", "k"):
            rotated = rotate_half_split(recorded[key + name], *rotary)
            assert_close(rotated, recorded[f"{key}{name}_rot"], tolerance["rotated"], key + name)
    norm = RMSNorm(recorded["rms/weight"].numel(), 1e-5).requires_grad_(False)
    norm.weight.copy_(recorded["rms/weight"])
    assert_close(norm(recorded["rms/x"]), recorded["rms/y"], tolerance["rms"], "RMSNorm")
    half = norm.half()(recorded["rms/x"].half())
    one_step = 2**-10 * recorded["rms/y_half"].abs().max().item()
    assert_close(half, recorded["rms/y_half"], one_step, "RMSNorm in float16")


def sampling_options(params: dict) -> SamplingOptions:
    greedy = not params.get("use_sampling", True)
    return SamplingOptions(
        temperature=0.0 if greedy else params.get("temperature", params.get("temp")),
        top_k=params["top_k"],
        top_p=params["top_p"],
        cfg_scale=params["cfg_coef"],
        repetition_window=params["record_window"] if params.get("record_tokens", True) else 0,
    )


def check_sampling(folder: Path, meta: dict) -> None:
    recorded, tolerance = tensors(folder, "data"), meta["tolerance_float32_max_abs"]
    options = sampling_options(meta["params"])
    logits = guide(recorded["logits_cond"], recorded["logits_uncond"], options.cfg_scale)
    if options.repetition_window:
        logits = penalize_repetition(logits, recorded["recent_tokens"][:, -options.repetition_window :])
    logits = ban(logits, recorded.get("banned_ids"))
    assert_close(logits, recorded["logits_final"], tolerance["logits_final"], "final logits")
    probs = probabilities(logits, options)
    for k, kept in enumerate(meta["kept_counts"]):
        ids = probs[k].nonzero().flatten()
        assert ids.numel() == kept
        expected = torch.zeros_like(probs[k]).scatter_(
            0, recorded[f"stream{k}_ids"], recorded[f"stream{k}_probs"]
        )
        assert_close(probs[k], expected, tolerance["probs"], f"probabilities of stream {k}")


def check_generation(folder: Path, meta: dict) -> None:
    lm, tokenizers = case_model(folder, meta)
    recorded, tolerance = tensors(folder, "data"), meta["tolerance_float32_max_abs"]
    inputs, prompt = meta["inputs"], recorded.get("prompt_in")
    conditions = make_conditions(
        PromptTexts(inputs["lyrics"], inputs["type_info_text"]), prompt, tokenizers, lm.config
    )
    if "conditioning/description" in recorded:
        names = ("description", "prompt_1", "prompt_2", "type_info")
        prefix = [recorded[f"conditioning/{n}"] for n in names]
        check_prefix(lm, conditions, prefix, tolerance["conditioning"], "")
    banned = banned_codes(prompt, lm.config)
    assert ([] if banned is None else banned.tolist()) == meta["banned_on_stream_0"]
    options = sampling_options(meta["generation_params"])
    replay_steps(lm, conditions, banned, options, recorded, meta)
    replay_generate(lm, conditions, banned, options, recorded, meta)


@torch.inference_mode()
def replay_steps(lm: LeLM, conditions, banned, options: SamplingOptions, recorded: dict, meta: dict) -> None:
    """Every step of the reference, also those after our loop would stop."""
    tolerance, config = meta["tolerance_float32_max_abs"], lm.config
    streams = DelayedStreams(meta["T"], config.delays, config.eos_id, config.special_id)
    cache = lm.make_cache(2, config.max_seq_len(meta["T"]), **CPU)
    logits = prefill(lm, conditions, streams.sequence[:, 0], cache)
    for step in range(meta["steps_run"]):
        for row, name in enumerate(("logits_cond", "logits_uncond")):
            if name in recorded:
                assert_close(logits[row], recorded[name][step], tolerance["logits"], f"{name} {step}")
        final = next_logits(logits, streams, options, banned)
        assert_close(final, recorded["logits_final"][step], tolerance["logits"], f"final logits {step}")
        probs = probabilities(final, options)
        if "probs" in recorded:
            assert_close(probs, recorded["probs"][step], tolerance["probs"], f"probabilities {step}")
        if options.temperature <= 0:
            assert_same(probs.argmax(-1), recorded["sampled"][step], f"greedy choice {step}")
        column = streams.write(recorded["sampled"][step])
        assert_same(column, recorded["columns"][0, :, step + 1], f"column {step + 1}")
        if step + 1 < meta["steps_run"]:
            logits = decode_one_frame(lm, column, cache)
    assert_same(streams.sequence[None], recorded["columns"], "columns")
    assert_same(undo_delay(streams.sequence[None], config.delays), recorded["out_codes"], "untrimmed codes")
    assert_same(streams.codes(), recorded["tokens"], "codes")


def replay_generate(
    lm: LeLM, conditions, banned, options: SamplingOptions, recorded: dict, meta: dict
) -> None:
    """The real loop with the recorded draws: same song, never more steps than the reference."""
    draws = iter(recorded["sampled"])
    frames = list(
        generate(
            lm, conditions, meta["T"], options, banned=banned, draw_codes=lambda probs: next(draws), **CPU
        )
    )
    assert len(frames) <= meta["steps_run"]
    assert frames[-1].length == meta["final_length"]
    assert_same(frames[-1].codes(), recorded["tokens"], "codes of the generation loop")
    if options.temperature <= 0 or (options.top_k == 1 and options.top_p == 0):
        greedy = [
            *generate(lm, conditions, meta["T"], replace(options, temperature=0.0), banned=banned, **CPU)
        ]
        assert_same(greedy[-1].codes(), recorded["tokens"], "greedy codes")


CHECKS = {
    "weights": check_weights,
    "tokenizer": check_tokenizer,
    "preprocess": check_preprocess,
    "conditioning": check_conditioning,
    "forward": check_forward,
    "pattern": check_pattern,
    "rope_rms": check_rope_rms,
    "sampling": check_sampling,
    "generation": check_generation,
}
